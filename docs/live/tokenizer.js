// CLIP's tokenizer; the same steps as ovseg/runtime/tokenizer.py.

const MERGES = 49152 - 256 - 2;
const PATTERN =
  /<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/gu;

export class Tokenizer {
  // merges: the text of bpe_simple_vocab_16e6.txt
  constructor(merges) {
    const pairs = merges.split("\n").slice(1, MERGES + 1);
    this.letters = lettersOfBytes();
    const inOrder = this.letters.order.map((byte) => this.letters[byte]);
    const tokens = [...inOrder, ...inOrder.map((letter) => letter + "</w>")];
    tokens.push(...pairs.map((pair) => pair.replace(" ", "")), "<start_of_text>", "<end_of_text>");
    this.ids = new Map(tokens.map((token, id) => [token, id]));
    this.ranks = new Map(pairs.map((pair, rank) => [pair, rank]));
  }

  // the ids of a text, start and end among them
  encode(text) {
    const plain = text.normalize("NFC").replace(/[‘’]/g, "'").replace(/[“”]/g, '"');
    const words = plain.split(/\s+/).join(" ").trim().toLowerCase().match(PATTERN) ?? [];
    const ids = words.flatMap((word) => this.merge(word));
    return [this.ids.get("<start_of_text>"), ...ids, this.ids.get("<end_of_text>")];
  }

  merge(word) {
    let parts = Array.from(new TextEncoder().encode(word), (byte) => this.letters[byte]);
    parts[parts.length - 1] += "</w>";
    for (;;) {
      let first = MERGES;
      for (let i = 0; i + 1 < parts.length; i++) {
        first = Math.min(first, this.ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? MERGES);
      }
      if (first === MERGES) return parts.map((part) => this.ids.get(part));
      const joined = [];
      for (let i = 0; i < parts.length; i++) {
        const pair = i + 1 < parts.length ? `${parts[i]} ${parts[i + 1]}` : "";
        if (this.ranks.get(pair) === first) joined.push(parts[i] + parts[++i]);
        else joined.push(parts[i]);
      }
      parts = joined;
    }
  }
}

// in the order of the ids: printable bytes as they are, then the others from 256 on
function lettersOfBytes() {
  const printable = (b) => (b > 32 && b < 127) || (b > 160 && b < 173) || b > 173;
  const bytes = Array.from({ length: 256 }, (_, b) => b);
  const order = [...bytes.filter(printable), ...bytes.filter((b) => !printable(b))];
  let next = 256;
  const letters = [];
  for (const b of order) letters[b] = String.fromCharCode(printable(b) ? b : next++);
  letters.order = order;
  return letters;
}
