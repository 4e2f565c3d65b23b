/**
 * A client that closes the response stream of a request cancels that request.
 *
 * The revision 2026-07-28 demands it of servers over Streamable HTTP. The effect
 * cannot be seen on the closed stream, so the server under test offers two tools:
 * one that works, and one that says what became of the work. The second is asked
 * over a request of its own.
 */

import {
  ClientScenario,
  ConformanceCheck,
  DRAFT_PROTOCOL_VERSION
} from '../../types';
import {
  buildStandardHeaders,
  sendStatelessRequest,
  withRequestMeta,
  type RunContext
} from '../../connection';
import { untestableCheck } from '../untestable';

const SPEC_REF = [
  {
    id: 'MCP-2026-07-28-cancellation',
    url: 'https://modelcontextprotocol.io/specification/2026-07-28/basic/patterns/cancellation'
  }
];
const WORK = 'test_cancellable_work';
const STATE = 'test_cancellable_work_state';
const WORK_SECONDS = 5;
const WITHIN_MS = 1000;
const POLL_MS = 25;
const REACH_MS = 5000;

type State = 'unknown' | 'working' | 'cancelled' | 'finished';

/** When the client leaves, and how much progress the tool reports before it. */
const PHASES = [
  { id: 'before-first-message', progress: 0, awaited: false },
  { id: 'after-progress', progress: 1, awaited: true },
  { id: 'during-progress', progress: 1_000_000, awaited: true }
] as const;

const sleep = (ms: number) => new Promise((done) => setTimeout(done, ms));

export class ServerDisconnectCancelsScenario implements ClientScenario {
  name = 'server-disconnect-cancels';
  readonly source = { introducedIn: DRAFT_PROTOCOL_VERSION } as const;
  description = `Closing the response stream of a request cancels the request.

**Server Implementation Requirements:**

Two tools:

- \`${WORK}(run: string, seconds: number, progress: number)\` works for \`seconds\`; while it works it sends
  \`progress\` progress notifications, one every 10 ms, and none after them. It stops as soon as its
  request is cancelled, in the way that the SDK tells a tool so.
- \`${STATE}(run: string)\` returns one text: \`unknown\`, \`working\`, \`cancelled\` or \`finished\`.

**Requirements:**

- MUST: the work of a request whose response stream was closed is cancelled. The scenario waits ${WITHIN_MS} ms for it.
- A call beside it is not touched, and the server answers afterwards.`;

  async run(ctx: RunContext): Promise<ConformanceCheck[]> {
    const { serverUrl, specVersion } = ctx;
    const marker = `run-${Date.now()}`;

    const callTool = async (name: string, args: Record<string, unknown>) => {
      const params = { name, arguments: args };
      const answer = await sendStatelessRequest(
        serverUrl,
        'tools/call',
        params,
        { specVersion }
      );
      const result = answer.body?.result as
        | { content?: { text?: string }[]; isError?: boolean }
        | undefined;
      return result?.isError ? undefined : result?.content?.[0]?.text;
    };
    const stateOf = async (run: string) =>
      (await callTool(STATE, { run })) as State | undefined;
    const reached = async (run: string, states: State[], withinMs: number) => {
      const until = Date.now() + withinMs;
      for (;;) {
        const state = await stateOf(run);
        if (
          state === undefined ||
          states.includes(state) ||
          Date.now() > until
        ) {
          return state;
        }
        await sleep(POLL_MS);
      }
    };

    if ((await stateOf(marker)) !== 'unknown') {
      return PHASES.map(({ id }) =>
        untestableCheck(
          `server-disconnect-cancels-${id}`,
          'ServerDisconnectCancels',
          'A closed response stream cancels its request',
          `the server has no tools \`${WORK}\` and \`${STATE}\``,
          SPEC_REF
        )
      );
    }

    const checks: ConformanceCheck[] = [];
    for (const { id, progress, awaited } of PHASES) {
      const run = `${marker}-${id}`;
      const beside = callTool(WORK, {
        run: `${run}-beside`,
        seconds: 0.3,
        progress: 0
      });
      const controller = new AbortController();
      const params = {
        name: WORK,
        arguments: { run, seconds: WORK_SECONDS, progress },
        _meta: { progressToken: run }
      };
      const sent = fetch(serverUrl, {
        method: 'POST',
        headers: buildStandardHeaders('tools/call', params, { specVersion }),
        body: JSON.stringify({
          jsonrpc: '2.0',
          id: run,
          method: 'tools/call',
          params: withRequestMeta(params, specVersion)
        }),
        signal: controller.signal
      });
      sent.catch(() => {}); // it is going to be aborted
      let error: string | undefined;
      if ((await reached(run, ['working'], REACH_MS)) !== 'working') {
        error = `the tool did not begin to work within ${REACH_MS} ms`;
      }
      if (error === undefined && awaited) {
        const late = sleep(REACH_MS).then(() => undefined);
        const response = await Promise.race([sent, late]);
        const first = await Promise.race([
          response?.body?.getReader().read(),
          late
        ]);
        if (first === undefined || first.done) {
          error = `no progress came within ${REACH_MS} ms`;
        }
      }
      const left = Date.now();
      controller.abort();
      let state: State | undefined;
      if (error === undefined) {
        state = await reached(run, ['cancelled', 'finished'], WITHIN_MS);
        if (state !== 'cancelled') {
          error =
            `expected the work to be cancelled within ${WITHIN_MS} ms of the` +
            ` client's disconnect, but it is ${state}`;
        }
      }
      const neighbour = await beside;
      if (error === undefined && neighbour === undefined) {
        error = 'a call beside the one that was left got no result';
      }
      checks.push({
        id: `server-disconnect-cancels-${id}`,
        name: 'ServerDisconnectCancels',
        description: `A closed response stream cancels its request: ${id}`,
        status: error === undefined ? 'SUCCESS' : 'FAILURE',
        timestamp: new Date().toISOString(),
        errorMessage: error,
        specReferences: SPEC_REF,
        details: { state, seenAfterMs: Date.now() - left }
      });
    }
    return checks;
  }
}
