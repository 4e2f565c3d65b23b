// The tool `work` on the TypeScript SDK, version 2: `node typescript_sdk.mjs PORT`.
// Needs `npm install @modelcontextprotocol/server @modelcontextprotocol/node zod`
// (seen with 2.4.0 and 2.1.2).
import { createServer } from "node:http";
import { createMcpHandler, McpServer } from "@modelcontextprotocol/server";
import { toNodeHandler } from "@modelcontextprotocol/node";
import { z } from "zod";
import { work } from "./work.mjs";

const handler = createMcpHandler(() => {
  const server = new McpServer({ name: "cancel-lab", version: "1" });
  const inputSchema = z.object({ run: z.string(), seconds: z.number(), progress: z.number() });
  server.registerTool("work", { description: "Works and reports its life.", inputSchema }, (given, { mcpReq }) => {
    const progressToken = mcpReq._meta?.progressToken;
    const report = (progress) =>
      mcpReq.notify({ method: "notifications/progress", params: { progressToken, progress } });
    return work(given, mcpReq.signal, report);
  });
  return server;
});
createServer(toNodeHandler(handler)).listen(Number(process.argv[2]), "127.0.0.1");
