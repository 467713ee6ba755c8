// Runs the model that lies beside this file, in browsers, workers and Node.
//
//     import { load } from "./index.js";
//     const model = await load();
//     const { scores } = model.run({ image: new Float32Array(3 * 224 * 224) });
//
// No eval, no inline script, no dependency: a policy of `script-src 'self' 'wasm-unsafe-eval'` is enough.

import spec from "./model.js";

/** What went wrong, as `code`: see index.d.ts for the list. */
export class PrunecError extends Error {
  constructor(code, message, options) {
    super(message, options);
    this.name = "PrunecError";
    this.code = code;
  }
}

const ARRAYS = { float32: Float32Array, int32: Int32Array, int64: BigInt64Array, uint8: Uint8Array };
const STATUS = { 3: "BAD_WEIGHTS", 5: "BAD_INDEX" };

// Modules of one function with one instruction of the set: (v128.const; i8x16.splat …) and (f32x4.relaxed_madd).
const PROBES = {
  simd128: [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11],
  relaxed: [
    0, 97, 115, 109, 1, 0, 0, 0, 1, 8, 1, 96, 3, 123, 123, 123, 1, 123, 3, 2, 1, 0, 10, 13, 1, 11, 0, 32, 0, 32, 1, 32,
    2, 253, 133, 2, 11,
  ],
};

function checkEngine() {
  if (typeof WebAssembly !== "object") throw new PrunecError("NO_WASM", "this engine has no WebAssembly");
  if (WebAssembly.validate(new Uint8Array(PROBES[spec.simd]))) return;
  throw spec.simd === "relaxed"
    ? new PrunecError("NO_RELAXED_SIMD", "this engine has no relaxed SIMD: compile the model without --relaxed-simd")
    : new PrunecError("NO_SIMD", "this engine has no WebAssembly SIMD, which every browser has since 2023");
}

/** A response for a URL: from the file system where the URL says so, which only Node has. */
async function open(url) {
  let response;
  try {
    if (url.protocol === "file:") {
      const { readFile } = await import("node:fs/promises");
      const headers = { "content-type": url.pathname.endsWith(".wasm") ? "application/wasm" : "" };
      return new Response(await readFile(url), { headers });
    }
    response = await fetch(url);
  } catch (cause) {
    throw new PrunecError("NOT_FOUND", `${url} cannot be read: ${cause.message}`, { cause });
  }
  if (!response.ok) throw new PrunecError("NOT_FOUND", `${url} cannot be read: ${response.status}`);
  return response;
}

async function compile(response, url) {
  try {
    const type = (response.headers.get("content-type") ?? "").split(";")[0].trim();
    return type === "application/wasm"
      ? await WebAssembly.compileStreaming(response) // while it is still arriving
      : await WebAssembly.compile(await response.arrayBuffer());
  } catch (cause) {
    throw new PrunecError("BAD_MODULE", `${url} is no module of this model, or cut short: ${cause.message}`, { cause });
  }
}

async function instantiate(module) {
  try {
    return await WebAssembly.instantiate(module, {});
  } catch (cause) {
    const mib = Math.ceil(spec.memory_bytes / 2 ** 20);
    throw cause instanceof RangeError
      ? new PrunecError("NO_MEMORY", `this engine does not give the model its ${mib} MiB of memory`, { cause })
      : new PrunecError("BAD_MODULE", `the module cannot be started: ${cause.message}`, { cause });
  }
}

/** Copy a response's body into memory as it arrives. */
async function fill(target, response, url) {
  let at = 0;
  const refuse = (what) => {
    const wanted = target.length;
    throw new PrunecError("BAD_WEIGHTS", `${url} has ${what}, not the ${wanted} of this model's weights`);
  };
  const reader = response.body.getReader();
  for (;;) {
    let piece;
    try {
      piece = await reader.read();
    } catch (cause) {
      throw new PrunecError("BAD_WEIGHTS", `${url} broke off after ${at} bytes: ${cause.message}`, { cause });
    }
    if (piece.done) break;
    if (at + piece.value.length > target.length) refuse("more bytes");
    target.set(piece.value, at);
    at += piece.value.length;
  }
  if (at !== target.length) refuse(`${at} bytes`);
}

/** The model, ready to run. `url` is where its .wasm lies: beside this file without one. Weights lie beside it. */
export async function load(url = new URL("./model.wasm", import.meta.url)) {
  const where = url instanceof URL ? url : new URL(url, globalThis.location?.href ?? import.meta.url);
  checkEngine();
  const beside = spec.weights === "beside" ? new URL("model.weights", where) : null;
  const weights = beside && open(beside);
  weights?.catch(() => {}); // seen below
  const instance = await instantiate(await compile(await open(where), where));
  const { memory, prunec_weights } = instance.exports;
  if (beside) await fill(new Uint8Array(memory.buffer, prunec_weights() >>> 0, spec.weights_bytes), await weights, beside);
  return new Model(instance);
}

class Model {
  #exports;
  #failed = null;
  #inputs;
  #outputs;

  constructor(instance) {
    this.#exports = instance.exports;
    const { memory, prunec_input, prunec_output } = this.#exports;
    const view = (find) => (tensor, number) =>
      new ARRAYS[tensor.dtype](memory.buffer, find(number) >>> 0, tensor.shape.reduce((a, b) => a * b, 1));
    this.#check(this.#exports.prunec_create());
    this.#inputs = spec.inputs.map(view(prunec_input));
    this.#outputs = spec.outputs.map(view(prunec_output));
    const described = (tensors) => tensors.map(({ name, dtype, shape }) => Object.freeze({ name, dtype, shape }));
    this.inputs = Object.freeze(described(spec.inputs));
    this.outputs = Object.freeze(described(spec.outputs));
    this.memoryBytes = spec.memory_bytes;
    this.arenaBytes = spec.arena_bytes;
    this.steps = Object.freeze([...spec.steps]);
  }

  /** Outputs by name, as arrays of their own. */
  run(inputs) {
    this.#feed(inputs);
    this.#step(0, spec.steps.length);
    return Object.fromEntries(spec.outputs.map(({ name }, number) => [name, this.#outputs[number].slice()]));
  }

  /** One run: milliseconds of every step, in the order of `steps`. */
  profile(inputs) {
    this.#feed(inputs);
    return spec.steps.map((_, step) => {
      const start = performance.now();
      this.#step(step, step + 1);
      return performance.now() - start;
    });
  }

  #feed(inputs) {
    const names = Object.keys(inputs ?? {});
    if (names.length !== spec.inputs.length || spec.inputs.some(({ name }) => !names.includes(name))) {
      const wanted = spec.inputs.map(({ name }) => name).join(", ") || "no inputs";
      throw new PrunecError("BAD_INPUT", `the model takes ${wanted}, not ${names.join(", ") || "none"}`);
    }
    spec.inputs.forEach((tensor, number) => {
      const given = inputs[tensor.name];
      const target = this.#inputs[number];
      const type = ARRAYS[tensor.dtype].name;
      const what = `${tensor.name} is a ${type} of ${target.length} elements [${tensor.shape.join(", ")}]`;
      if (!(given instanceof ARRAYS[tensor.dtype]))
        throw new PrunecError("BAD_INPUT", `${what}, not ${given?.constructor?.name ?? typeof given}`);
      if (given.length !== target.length) throw new PrunecError("BAD_INPUT", `${what}, not of ${given.length}`);
      if (tensor.dtype === "float32" && given.some(Number.isNaN))
        throw new PrunecError("BAD_INPUT", `${tensor.name} holds NaN`);
      if (tensor.is_bool && given.some((byte) => byte > 1))
        throw new PrunecError("BAD_INPUT", `${tensor.name} holds truths: 0 and 1`);
    });
    spec.inputs.forEach((tensor, number) => this.#inputs[number].set(inputs[tensor.name]));
  }

  #step(first, end) {
    if (this.#failed) throw new PrunecError("FAILED", `an earlier run ended the model: ${this.#failed}`);
    let status;
    try {
      status = this.#exports.prunec_run(first, end);
    } catch (cause) {
      this.#failed = cause.message; // a trap leaves memory in no known state
      throw new PrunecError("FAILED", `the model stopped: ${cause.message}`, { cause });
    }
    this.#check(status);
  }

  #check(status) {
    if (!status) return;
    const { memory, prunec_message } = this.#exports;
    const bytes = new Uint8Array(memory.buffer, prunec_message() >>> 0, 256);
    const text = new TextDecoder().decode(bytes.slice(0, bytes.indexOf(0)));
    throw new PrunecError(STATUS[status] ?? "FAILED", text || `the model ended with status ${status}`);
  }
}
