// BERT's WordPiece: from a text to numbers of the vocabulary. Lower case unless the vocabulary has capitals.

const LONGEST_WORD = 100;
const isPunctuation = (c) => /^[!-/:-@[-`{-~]$/.test(c) || /^\p{P}$/u.test(c);

export class WordPiece {
  #numbers;
  #isCased;

  /** `pieces`: the vocabulary in order. */
  constructor(pieces) {
    this.#numbers = new Map(pieces.map((piece, number) => [piece, number]));
    this.#isCased = pieces.some((piece) => !piece.startsWith("[") && piece !== piece.toLowerCase());
  }

  /** { ids, tokens }: [CLS] pieces [SEP], cut or padded to `length`; tokens before the padding. */
  encode(text, length) {
    const special = (name) => this.#numbers.get(name);
    const pieces = this.#words(text).flatMap((word) => this.#pieces(word));
    const ids = [special("[CLS]"), ...pieces.slice(0, length - 2), special("[SEP]")];
    return { ids: [...ids, ...Array(length - ids.length).fill(special("[PAD]") ?? 0)], tokens: ids.length };
  }

  #words(text) {
    const plain = this.#isCased ? text.normalize("NFC") : text.toLowerCase().normalize("NFD").replace(/\p{Mn}/gu, "");
    const found = [];
    for (const chunk of plain.split(/\s+/u)) {
      let word = "";
      for (const c of chunk) {
        if (!isPunctuation(c)) {
          word += c;
          continue;
        }
        if (word) found.push(word);
        found.push(c);
        word = "";
      }
      if (word) found.push(word);
    }
    return found;
  }

  #pieces(word) {
    const letters = [...word];
    const found = [];
    for (let start = 0; start < letters.length; ) {
      let stop = letters.length;
      const piece = () => (start ? "##" : "") + letters.slice(start, stop).join("");
      while (stop > start && !this.#numbers.has(piece())) stop--;
      if (stop === start || letters.length > LONGEST_WORD) return [this.#numbers.get("[UNK]")];
      found.push(this.#numbers.get(piece()));
      start = stop;
    }
    return found;
  }
}
