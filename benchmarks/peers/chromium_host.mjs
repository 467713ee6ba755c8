// Times a package of prunec, or onnxruntime-web, in a page. Input n is the file /inputs/n beside it.

const ARRAYS = { float32: Float32Array, int32: Int32Array, int64: BigInt64Array, uint8: Uint8Array, bool: Uint8Array };
let once;

async function array({ dtype }, number) {
  return new ARRAYS[dtype](await (await fetch(`/inputs/${number}`)).arrayBuffer());
}

export async function loadPackage(inputs) {
  const { load } = await import("/model/index.js");
  const model = await load();
  const arrays = await Promise.all(inputs.map(array));
  const feeds = Object.fromEntries(inputs.map(({ name }, number) => [name, arrays[number]]));
  once = () => model.run(feeds);
}

export async function loadOrt(inputs) {
  const ort = await import("/ort/ort.wasm.min.mjs");
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmPaths = "/ort/";
  const bytes = new Uint8Array(await (await fetch("/model.onnx")).arrayBuffer());
  const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
  const session = await ort.InferenceSession.create(bytes, options);
  const arrays = await Promise.all(inputs.map(array));
  const feeds = {};
  for (const [number, { name, dtype, shape }] of inputs.entries())
    feeds[name] = new ort.Tensor(dtype, arrays[number], shape);
  once = () => session.run(feeds);
}

/** Nanoseconds of one run, by a clock of 5 µs. */
export async function time() {
  const start = performance.now();
  await once();
  return Math.round(1e6 * (performance.now() - start));
}
