// Times onnxruntime-web in Node: one JSON object a line each way, as prunec's own host does.
//
//     {"op": "load", "package", "model", "inputs": [{name, dtype, shape, file}]} -> {"versions"}
//     {"op": "time"} -> {"ns"}          {"op": "end"} -> {"peak_rss_bytes"}

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const ARRAYS = { float32: Float32Array, int32: Int32Array, int64: BigInt64Array, bool: Uint8Array };
let session, feeds;

const operations = {
  async load({ package: folder, model, inputs }) {
    const require = createRequire(`${folder}/package.json`);
    const ort = await import(pathToFileURL(require.resolve("onnxruntime-web")).href);
    const web = ort.InferenceSession ? ort : ort.default;
    web.env.wasm.numThreads = 1;
    const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
    session = await web.InferenceSession.create(new Uint8Array(await readFile(model)), options);
    feeds = {};
    for (const { name, dtype, shape, file } of inputs) {
      const bytes = await readFile(file);
      const data = new ARRAYS[dtype](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
      feeds[name] = new web.Tensor(dtype, data, shape);
    }
    const version = JSON.parse(await readFile(`${folder}/node_modules/onnxruntime-web/package.json`)).version;
    return { versions: { "onnxruntime-web": version, node: process.versions.node, v8: process.versions.v8 } };
  },
  async time() {
    const start = process.hrtime.bigint();
    await session.run(feeds);
    return { ns: Number(process.hrtime.bigint() - start) };
  },
  end: () => ({ peak_rss_bytes: process.resourceUsage().maxRSS * 1024 }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  let answer;
  try {
    answer = await operations[request.op](request);
  } catch (reason) {
    answer = { error: `${reason.name}: ${reason.message}` };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
  if (request.op === "end") process.exit(0);
}
