// Answers prunec: loads a package, runs it on inputs from files, and times it. One JSON object a line each way.
//
//     {"op": "load", "folder", "inputs": [{name, dtype, file}]} -> {"versions"}
//     {"op": "run", "outputs": [file]}                          -> {}
//     {"op": "time", "clock": "wall" or "cpu"}                  -> {"ns"}
//     {"op": "profile"}                                         -> {"ms": [of every step]}
//     {"op": "end"}                                             -> {"peak_rss_bytes"}

import { readFile, writeFile } from "node:fs/promises";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const ARRAYS = { float32: Float32Array, int32: Int32Array, int64: BigInt64Array, uint8: Uint8Array };
let model, inputs;

async function array({ dtype, file }) {
  const bytes = await readFile(file);
  return new ARRAYS[dtype](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

const operations = {
  async load(request) {
    const { load } = await import(pathToFileURL(`${request.folder}/index.js`).href);
    model = await load();
    inputs = {};
    for (const input of request.inputs) inputs[input.name] = await array(input);
    return { versions: { node: process.versions.node, v8: process.versions.v8 } };
  },
  async run({ outputs }) {
    const found = Object.values(model.run(inputs));
    for (const [number, file] of outputs.entries()) {
      const { buffer, byteOffset, byteLength } = found[number];
      await writeFile(file, new Uint8Array(buffer, byteOffset, byteLength));
    }
    return {};
  },
  time({ clock }) {
    if (clock === "cpu") {
      const before = process.cpuUsage();
      model.run(inputs);
      const { user, system } = process.cpuUsage(before);
      return { ns: 1000 * (user + system) };
    }
    const start = process.hrtime.bigint();
    model.run(inputs);
    return { ns: Number(process.hrtime.bigint() - start) };
  },
  profile: () => ({ ms: model.profile(inputs) }),
  end: () => ({ peak_rss_bytes: process.resourceUsage().maxRSS * 1024 }),
};

for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  let answer;
  try {
    answer = await operations[request.op](request);
  } catch (reason) {
    answer = { error: `${reason.code ?? reason.name}: ${reason.message}` };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
  if (request.op === "end") break;
}
