// Runs the pruned and the dense model beside each other, away from the page, which stays responsive.
//
//     { id, op: "load" }                     -> { inputs, outputs, memoryBytes }
//     { id, op: "run", inputs }              -> { pruned, dense }: outputs by name
//     { id, op: "measure", inputs, seconds } -> { pruned, dense }: milliseconds of one run, a median for every block;
//                                               the same so far as { id, partial } after every round

import { load as loadPruned } from "../index.js";
import { load as loadDense } from "./dense/index.js";

const BLOCK_MS = 10; // the clock of a page is too coarse for one run of a small model
const MOST_ROUNDS = 200;
let pruned, dense;

function milliseconds(model, inputs, runs) {
  const start = performance.now();
  for (let i = 0; i < runs; i++) model.run(inputs);
  return (performance.now() - start) / runs;
}

/** Runs a block holds; the engine compiles functions anew while they run, so it gets `warmMs` for that first. */
function warmed(model, inputs, warmMs) {
  const start = performance.now();
  let runs = 0;
  do {
    model.run(inputs);
    runs++;
  } while (performance.now() - start < warmMs);
  return Math.max(1, Math.ceil((BLOCK_MS * runs) / (performance.now() - start)));
}

const operations = {
  async load() {
    [pruned, dense] = await Promise.all([loadPruned(), loadDense()]);
    return { inputs: pruned.inputs, outputs: pruned.outputs, memoryBytes: pruned.memoryBytes + dense.memoryBytes };
  },
  run: ({ inputs }) => ({ pruned: pruned.run(inputs), dense: dense.run(inputs) }),
  measure({ id, inputs, seconds }) {
    const runs = [pruned, dense].map((model) => warmed(model, inputs, 250 * seconds));
    const found = { pruned: [], dense: [] };
    const start = performance.now();
    for (let round = 0; round < MOST_ROUNDS && (round < 4 || performance.now() - start < 1000 * seconds); round++) {
      const first = () => found.pruned.push(milliseconds(pruned, inputs, runs[0]));
      const second = () => found.dense.push(milliseconds(dense, inputs, runs[1]));
      for (const block of round % 2 ? [second, first] : [first, second]) block(); // A B B A: drift falls on both
      postMessage({ id, partial: found });
    }
    return found;
  },
};

onmessage = async ({ data: { id, op, ...request } }) => {
  try {
    postMessage({ id, answer: await operations[op]({ id, ...request }) });
  } catch (reason) {
    postMessage({ id, error: { code: reason.code ?? reason.name, message: reason.message } });
  }
};
