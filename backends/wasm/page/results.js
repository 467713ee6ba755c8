// What the outputs look like: the largest scores with their names, a map of pixels, or a curve; and two bars of time.

const SHOWN = 5;
const MOST_CLASSES = 100_000;

export function quantile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

export function element(tag, { text, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

/** The largest difference of any output, relative to the range of that output: as prunec compares. */
export function largest(tensors, wanted, found) {
  let worst = 0;
  for (const { name } of tensors) {
    const [a, b] = [wanted[name], found[name]];
    let range = 0;
    let difference = 0;
    for (let i = 0; i < a.length; i++) {
      range = Math.max(range, Math.abs(Number(a[i])));
      difference = Math.max(difference, Math.abs(Number(a[i]) - Number(b[i])));
    }
    if (difference) worst = Math.max(worst, difference / (range || 1));
  }
  return worst.toExponential(1);
}

export function show(place, tensors, outputs, about) {
  place.replaceChildren(
    ...tensors.flatMap((tensor) => [
      element("h3", { text: `${tensor.name} [${tensor.shape.join(", ")}]` }),
      picture(tensor, outputs[tensor.name], about),
    ]),
  );
}

function picture(tensor, values, about) {
  const long = tensor.shape.filter((length) => length > 1);
  if (!values.length) return element("p", { className: "soft", text: "no elements" });
  if (long.length === 0) return element("p", { className: "number", text: String(values[0]) });
  if (tensor.dtype !== "float32") return element("p", { className: "number", text: values.slice(0, 32).join(", ") });
  if (long.length === 1 && !about.is_embedding && values.length <= MOST_CLASSES) return classes(values, about.labels);
  if (long.length === 2 && Math.min(...long) >= 8) return map(values, long[1], long[0]);
  return curve(values);
}

/** Scores that are no shares already are shown as a softmax of them. */
function classes(values, labels) {
  const sum = values.reduce((a, b) => a + b, 0);
  const areShares = values.every((v) => v >= 0 && v <= 1) && Math.abs(sum - 1) < 1e-3;
  const top = values.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = areShares ? values : values.map((v) => Math.exp(v - top));
  const all = weights.reduce((a, b) => a + b, 0) || 1;
  const order = [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, SHOWN);
  return element(
    "ol",
    { className: "classes" },
    ...order.map((index) => {
      const share = weights[index] / all;
      const bar = element("div", { className: "bar" });
      bar.style.width = `${100 * share}%`;
      const text = `${(100 * share).toFixed(1)} %`;
      return element("li", {}, element("span", { text: labels[index] ?? `number ${index}` }), bar,
        element("span", { className: "number", text, title: `${values[index]}` }));
    }),
  );
}

function map(values, width, height) {
  const canvas = element("canvas", { width, height, className: "pixels" });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const [low, high] = extremes(values);
  for (let i = 0; i < width * height; i++) {
    const level = (255 * (values[i] - low)) / (high - low || 1);
    image.data.set([level, level, level, 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
  canvas.style.width = "100%";
  return element("div", {}, canvas, range(low, high));
}

export function curve(values) {
  const canvas = element("canvas", { className: "plot", width: 800, height: 180 });
  const context = canvas.getContext("2d");
  const [low, high] = extremes(values);
  context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--own");
  context.lineWidth = 2;
  context.beginPath();
  for (let i = 0; i < values.length; i++) {
    const x = (800 * (i + 0.5)) / values.length;
    context.lineTo(x, 175 - (170 * (Number(values[i]) - low)) / (high - low || 1));
  }
  context.stroke();
  return element("div", {}, canvas, range(low, high));
}

const range = (low, high) =>
  element("p", { className: "soft number", text: `from ${low.toPrecision(4)} to ${high.toPrecision(4)}` });

function extremes(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    low = Math.min(low, Number(value));
    high = Math.max(high, Number(value));
  }
  return [low, high];
}

export function bars(place, times) {
  const medians = { pruned: quantile(times.pruned, 0.5), dense: quantile(times.dense, 0.5) };
  const most = Math.max(medians.pruned, medians.dense);
  const row = (name, className) => {
    const bar = element("div", { className });
    bar.style.width = `${(100 * medians[name]) / most}%`;
    const text = `${medians[name].toFixed(3)} ms (90 %: ${quantile(times[name], 0.9).toFixed(3)})`;
    return element("div", { className: "latency" }, element("span", { text: name }), bar,
      element("span", { className: "number", text }));
  };
  place.replaceChildren(row("pruned", "bar"), row("dense", "bar other"));
}
