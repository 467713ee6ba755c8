// Editors of inputs: a picture, a text, or plain numbers. Each reads into typed arrays by name, and takes such arrays.

import { curve, element } from "./results.js";
import { WordPiece } from "./wordpiece.js";

export const ARRAYS = { float32: Float32Array, int32: Int32Array, int64: BigInt64Array, uint8: Uint8Array };
export const size = (tensor) => tensor.shape.reduce((a, b) => a * b, 1);

/** One editor for every input, but one for all inputs that a text makes; they are put into `place`. */
export async function editors(place, tensors, about) {
  const kinds = tensors.map((tensor, i) => ({ tensor, ...about.inputs[i] }));
  const text = kinds.filter(({ kind }) => ["ids", "mask", "segments"].includes(kind));
  const others = kinds.filter((one) => !text.includes(one));
  const found = others.map((one) => (one.kind === "image" ? image(one) : numbers(one)));
  if (text.length) {
    const pieces = await (await fetch(new URL("./vocabulary.json", import.meta.url))).json();
    found.unshift(sentence(text, new WordPiece(pieces)));
  }
  place.replaceChildren(...found.map(({ view }) => view));
  return found;
}

/** A place for files that are dropped on it or chosen. */
function dropZone(accept, take, ...children) {
  const input = element("input", { type: "file", accept });
  input.onchange = () => input.files[0] && take(input.files[0]);
  const zone = element("div", { className: "drop" }, ...children, element("label", {}, "Drop a file here or choose one: ", input));
  zone.ondragover = (event) => {
    event.preventDefault();
    zone.classList.add("over");
  };
  zone.ondragleave = () => zone.classList.remove("over");
  zone.ondrop = (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  };
  return zone;
}

function select(label, names) {
  const list = element("select", {}, ...names.map((text, value) => element("option", { text, value: String(value) })));
  return { list, view: element("label", {}, label, list) };
}

/** A picture, scaled to the input's pixels; how bytes become numbers is a choice, the first one that of the data. */
function image({ tensor, image: { channels, height, width, channels_last, scales } }) {
  const canvas = element("canvas", { width, height, className: width < 100 ? "pixels" : "" });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const scale = select("numbers", scales.map(({ name }) => name));
  const order = select("channels", ["RGB", "BGR"]);
  const fit = select("fit", ["crop", "stretch", "whole"]);
  const inverted = element("input", { type: "checkbox" });
  let exact = null; // the numbers that are drawn, where they come from an array
  let bitmap = null;

  function draw() {
    if (!bitmap) return;
    exact = null;
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    const factors = [width / bitmap.width, height / bitmap.height];
    const factor = fit.list.value === "0" ? Math.max(...factors) : Math.min(...factors);
    const [w, h] = fit.list.value === "1" ? [width, height] : [bitmap.width * factor, bitmap.height * factor];
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, (width - w) / 2, (height - h) / 2, w, h);
  }

  async function take(file) {
    try {
      bitmap = await createImageBitmap(file);
      draw();
    } catch {
      zone.querySelector("label").firstChild.textContent = `${file.name} is no picture that this browser reads: `;
    }
  }

  /** Where channel `c` of pixel `p` lies in the tensor. */
  const at = (p, c) => (channels_last ? p * channels + c : c * width * height + p);
  const source = (c) => (channels === 3 && order.list.value === "1" ? 2 - c : c);

  function read() {
    if (exact) return { [tensor.name]: exact };
    const { data } = context.getImageData(0, 0, width, height);
    const { low, high } = scales[Number(scale.list.value)];
    const values = new Float32Array(size(tensor));
    for (let p = 0; p < width * height; p++) {
      const grey = 0.299 * data[4 * p] + 0.587 * data[4 * p + 1] + 0.114 * data[4 * p + 2];
      for (let c = 0; c < channels; c++) {
        const byte = channels === 1 ? grey : data[4 * p + source(c)];
        values[at(p, c)] = low[c] + ((inverted.checked ? 255 - byte : byte) / 255) * (high[c] - low[c]);
      }
    }
    return { [tensor.name]: values };
  }

  function write(arrays) {
    exact = arrays[tensor.name];
    bitmap = null;
    const { low, high } = scales[Number(scale.list.value)];
    const shown = context.createImageData(width, height);
    for (let p = 0; p < width * height; p++) {
      for (let c = 0; c < 3; c++) {
        const channel = channels === 1 ? 0 : source(c);
        shown.data[4 * p + c] = (255 * (exact[at(p, channel)] - low[channel])) / (high[channel] - low[channel] || 1);
      }
      shown.data[4 * p + 3] = 255;
    }
    context.putImageData(shown, 0, 0);
  }

  const zone = dropZone("image/*", take, canvas);
  fit.list.onchange = draw;
  const choices = [scale.view, fit.view, element("label", {}, inverted, "inverted")];
  if (channels === 3) choices.push(order.view);
  const view = element("div", {}, element("h3", { text: tensor.name }), zone, element("div", { className: "options" }, ...choices));
  return { view, read, write };
}

/** A text for the inputs that a WordPiece tokeniser makes: numbers of pieces, which of them count, and zeros. */
function sentence(inputs, tokeniser) {
  const ids = inputs.find(({ kind }) => kind === "ids").tensor;
  const length = ids.shape.at(-1);
  const area = element("textarea", { placeholder: "Type a text." });
  const count = element("p", { className: "soft" });
  let exact = null;
  area.oninput = () => {
    exact = null;
    count.textContent = `${tokeniser.encode(area.value, length).tokens} of ${length} tokens`;
  };

  function read() {
    if (exact) return exact;
    const encoded = tokeniser.encode(area.value, length);
    const rows = { ids: encoded.ids, mask: encoded.ids.map((_, i) => (i < encoded.tokens ? 1 : 0)), segments: encoded.ids.map(() => 0) };
    const array = ({ tensor, kind }) => [tensor.name, ARRAYS[tensor.dtype].from(rows[kind], tensor.dtype === "int64" ? BigInt : Number)];
    return Object.fromEntries(inputs.map(array));
  }

  function write(arrays) {
    exact = Object.fromEntries(inputs.map(({ tensor }) => [tensor.name, arrays[tensor.name]]));
    area.value = "";
    count.textContent = "The sample's tokens; a text takes their place.";
  }

  return { view: element("div", {}, element("h3", { text: "text" }), area, count), read, write };
}

/** Numbers as a list, from a file of raw ones, or the bytes of a text. */
function numbers({ tensor }) {
  const wanted = size(tensor);
  const make = tensor.dtype === "int64" ? (text) => BigInt(text) : Number;
  const area = element("textarea", { spellcheck: false });
  const plot = element("div");
  const way = select("written as", tensor.dtype === "float32" ? ["numbers"] : ["numbers", "text: its bytes, then zeros"]);
  let exact = null;

  const drawn = (array) => plot.replaceChildren(wanted > 1 ? curve(array) : "");
  area.oninput = () => {
    exact = null;
  };
  way.list.onchange = area.oninput;

  function read() {
    if (exact) return { [tensor.name]: exact };
    const words = way.list.value === "1" ? [...new TextEncoder().encode(area.value)] : area.value.split(/[\s,;]+/).filter(Boolean);
    if (way.list.value === "1") words.push(...Array(Math.max(0, wanted - words.length)).fill(0));
    if (words.length !== wanted)
      throw Object.assign(new Error(`${tensor.name} has ${wanted} elements, not ${words.length}`), { code: "BAD_INPUT" });
    let values;
    try {
      values = ARRAYS[tensor.dtype].from(words, make);
    } catch {
      values = [NaN];
    }
    if (values.some(Number.isNaN))
      throw Object.assign(new Error(`${tensor.name} holds what is no number`), { code: "BAD_INPUT" });
    drawn(values);
    return { [tensor.name]: values };
  }

  function write(arrays) {
    exact = arrays[tensor.name];
    area.value = wanted <= 4096 ? exact.join(" ") : `(${wanted} numbers)`;
    drawn(exact);
  }

  async function take(file) {
    const bytes = await file.arrayBuffer();
    const raw = bytes.byteLength === wanted * ARRAYS[tensor.dtype].BYTES_PER_ELEMENT;
    if (raw) return write({ [tensor.name]: new ARRAYS[tensor.dtype](bytes) });
    area.value = new TextDecoder().decode(bytes);
    exact = null;
  }

  const title = `${tensor.name}: ${tensor.dtype} [${tensor.shape.join(", ")}]`;
  const zone = dropZone("", take);
  return { view: element("div", {}, element("h3", { text: title }), area, plot, element("div", { className: "options" }, way.view), zone), read, write };
}
