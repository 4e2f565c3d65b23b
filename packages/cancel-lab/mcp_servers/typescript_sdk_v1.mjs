// The tool `work` on the TypeScript SDK, version 1: `node typescript_sdk_v1.mjs PORT`.
// Needs `npm install @modelcontextprotocol/sdk express zod` (seen with 1.32.2). It has
// a session for each client, as the SDK's own examples do.
import { randomUUID } from "node:crypto";
import express from "express";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { isInitializeRequest } from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";
import { work } from "./work.mjs";

const transports = new Map();
const app = express();
app.use(express.json());

function makeServer() {
  const server = new McpServer({ name: "cancel-lab", version: "1" });
  const inputSchema = { run: z.string(), seconds: z.number(), progress: z.number() };
  server.registerTool("work", { description: "Works and reports its life.", inputSchema }, (given, extra) => {
    const progressToken = extra._meta?.progressToken;
    const report = (progress) =>
      extra.sendNotification({ method: "notifications/progress", params: { progressToken, progress } });
    return work(given, extra.signal, report);
  });
  return server;
}

app.all("/mcp", async (request, response) => {
  let transport = transports.get(request.headers["mcp-session-id"]);
  if (transport === undefined) {
    if (request.method !== "POST" || !isInitializeRequest(request.body)) {
      response.status(400).end();
      return;
    }
    transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (id) => transports.set(id, transport),
    });
    await makeServer().connect(transport);
  }
  await transport.handleRequest(request, response, request.body);
});
app.listen(Number(process.argv[2]), "127.0.0.1");
