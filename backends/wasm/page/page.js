// The demo page: an editor for every input, what the model answers, and what it takes beside the dense one.

import spec from "../model.js";
import about from "./about.js";
import { ARRAYS, editors, size } from "./inputs.js";
import { bars, largest, quantile, show } from "./results.js";

/** What the page shows, for those who drive it: status is loading, ready, busy or failed. */
export const state = { status: "loading", error: null, inputs: null, outputs: null, dense: null, times: null };

// Of measuring: ?seconds=10 for others.
const SECONDS = Number(new URLSearchParams(location.search).get("seconds")) || 3;
const find = (id) => document.getElementById(id);
const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let asked = 0;

worker.onerror = (event) => fail({ code: "FAILED", message: event.message || "the worker could not be started" });
worker.onmessage = ({ data: { id, answer, partial, error } }) => {
  const one = waiting.get(id);
  if (partial) return one.progress(partial);
  waiting.delete(id);
  if (error) one.reject(error);
  else one.resolve(answer);
};

function ask(op, request = {}, progress = () => {}) {
  return new Promise((resolve, reject) => {
    waiting.set(++asked, { resolve, reject, progress });
    worker.postMessage({ id: asked, op, ...request });
  });
}

function say(status, text, isBad = false) {
  state.status = status;
  find("status").textContent = text;
  find("status").className = isBad ? "bad" : "soft";
  for (const button of document.querySelectorAll("button")) button.disabled = status !== "ready";
}

function fail(reason) {
  state.error = `${reason.code ?? reason.name}: ${reason.message}`;
  const isUsable = reason.isInput || ["BAD_INPUT", "BAD_INDEX"].includes(reason.code);
  say(isUsable ? "ready" : "failed", state.error, true);
}

const mb = (bytes) => `${(bytes / 1e6).toFixed(2)} MB`;

async function sample() {
  const buffer = await (await fetch(new URL("./sample.bin", import.meta.url))).arrayBuffer();
  const read = (tensors, offsets) =>
    Object.fromEntries(
      tensors.map((tensor, i) => [tensor.name, new ARRAYS[tensor.dtype](buffer, offsets[i], size(tensor)).slice()]),
    );
  return {
    inputs: read(spec.inputs, about.sample.inputs),
    outputs: read(spec.outputs, about.sample.outputs),
  };
}

/** Inputs of the editors, checked by them; an error about them leaves the page usable. */
function given(all) {
  try {
    return Object.assign({}, ...all.map((editor) => editor.read()));
  } catch (reason) {
    throw Object.assign(reason, { isInput: true });
  }
}

async function run(all, wanted) {
  say("busy", "running …");
  try {
    state.inputs = given(all);
    const { pruned, dense } = await ask("run", { inputs: state.inputs });
    Object.assign(state, { outputs: pruned, dense, error: null });
    show(find("results"), spec.outputs, pruned, about);
    const isSample = spec.inputs.every(({ name }) => wanted.inputs[name].every((v, i) => v === state.inputs[name][i]));
    const words = [`The dense model's answer differs by ${largest(spec.outputs, dense, pruned)} of its range.`];
    if (isSample)
      words.unshift(`ONNX Runtime's answer differs by ${largest(spec.outputs, wanted.outputs, pruned)} of its range.`);
    find("differences").textContent = words.join(" ");
    say("ready", "");
  } catch (reason) {
    fail(reason);
  }
}

async function measure(all) {
  say("busy", "measuring …");
  try {
    const inputs = given(all);
    const draw = (times) => bars(find("bars"), times);
    state.times = await ask("measure", { inputs, seconds: SECONDS }, draw);
    draw(state.times);
    const ratios = state.times.dense.map((ms, i) => ms / state.times.pruned[i]);
    const [low, middle, high] = [0.1, 0.5, 0.9].map((share) => quantile(ratios, share).toFixed(2));
    find("ratio").textContent =
      `${middle} times as fast as dense in the same kernels (${low} to ${high} in eight of ten pairs).`;
    say("ready", "");
  } catch (reason) {
    fail(reason);
  }
}

async function start() {
  find("title").textContent = document.title = spec.name;
  const { pruned, dense } = about.sizes;
  find("facts").textContent =
    `Pruned: ${mb(pruned.module)} of code, ${mb(pruned.weights)} of weights. ` +
    `Dense: ${mb(dense.module)} and ${mb(dense.weights)}. Everything on this page stays on this machine.`;
  const [, wanted] = await Promise.all([ask("load"), sample()]);
  const all = await editors(find("editors"), spec.inputs, about);
  for (const editor of all) editor.write(wanted.inputs);
  find("run").onclick = () => run(all, wanted);
  find("measure").onclick = () => measure(all);
  find("sample").onclick = () => {
    for (const editor of all) editor.write(wanted.inputs);
    return run(all, wanted);
  };
  document.querySelector("main").hidden = false;
  await run(all, wanted);
}

start().catch(fail);
