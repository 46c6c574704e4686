// Numbers and times as they are shown.

const whole = new Intl.NumberFormat("en");
const tenth = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export const NOTHING = "–";

export function count(number) {
  if (number === undefined || number === null) return NOTHING;
  return number >= 1e7 ? `${tenth.format(number / 1e6)} M` : whole.format(number);
}

export function decimal(number) {
  return number === undefined || number === null ? NOTHING : tenth.format(number);
}

export function milliseconds(seconds) {
  return seconds === undefined || seconds === null ? NOTHING : whole.format(Math.round(seconds * 1000));
}

// The two largest units: "3 d 6 h", "51 s".
export function age(seconds) {
  let left = Math.max(0, Math.floor(seconds));
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]].map(([unit, size]) => {
    const number = Math.floor(left / size);
    left %= size;
    return { number, text: `${number} ${unit}` };
  });
  const first = parts.findIndex((part) => part.number > 0);
  return first < 0 ? "0 s" : parts.slice(first, first + 2).filter((part) => part.number).map((part) => part.text).join(" ");
}
