/** What the model takes: dense arrays in row-major order. Bools are bytes. */
export interface Inputs {}

/** What it gives, as arrays of their own. */
export interface Outputs {}

export interface Tensor {
  readonly name: string;
  readonly dtype: "float32" | "int32" | "int64" | "uint8";
  readonly shape: readonly number[];
}

/**
 * NO_WASM, NO_SIMD, NO_RELAXED_SIMD: the engine lacks it. NOT_FOUND: a file cannot be read. BAD_MODULE, BAD_WEIGHTS: a
 * file is cut short, or another model's. NO_MEMORY: the engine does not give `memoryBytes`. BAD_INPUT: names, types or
 * lengths that are not the model's, or NaN. BAD_INDEX: an index in the input lies outside its table. FAILED: a defect.
 */
export type ErrorCode =
  | "NO_WASM"
  | "NO_SIMD"
  | "NO_RELAXED_SIMD"
  | "NOT_FOUND"
  | "BAD_MODULE"
  | "BAD_WEIGHTS"
  | "NO_MEMORY"
  | "BAD_INPUT"
  | "BAD_INDEX"
  | "FAILED";

export class PrunecError extends Error {
  readonly name: "PrunecError";
  readonly code: ErrorCode;
}

export interface Model {
  readonly inputs: readonly Tensor[];
  readonly outputs: readonly Tensor[];
  /** All the memory that it ever has. */
  readonly memoryBytes: number;
  /** Of these, for intermediate results. */
  readonly arenaBytes: number;
  /** Names of the nodes of each step. */
  readonly steps: readonly string[];
  /** Throws PrunecError BAD_INPUT, BAD_INDEX or FAILED. */
  run(inputs: Inputs): Outputs;
  /** Milliseconds of every step of one run. */
  profile(inputs: Inputs): number[];
}

/** `url`: of model.wasm, without one the file beside this module; weights lie beside it. Rejects with PrunecError. */
export function load(url?: string | URL): Promise<Model>;
