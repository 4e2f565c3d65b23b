// The tool `work` on fastmcp for Node: `node node_fastmcp.mjs PORT`.
// Needs `npm install fastmcp zod` (seen with 4.20.16).
import { FastMCP } from "fastmcp";
import { z } from "zod";
import { work } from "./work.mjs";

const server = new FastMCP({ name: "cancel-lab", version: "1.0.0" });
server.addTool({
  name: "work",
  description: "Works and reports its life.",
  parameters: z.object({ run: z.string(), seconds: z.number(), progress: z.number() }),
  execute: async (given, { reportProgress, signal }) => {
    const done = await work(given, signal, (progress) => reportProgress({ progress }));
    return done;
  },
});
await server.start({ transportType: "httpStream", httpStream: { port: Number(process.argv[2]), host: "127.0.0.1" } });
