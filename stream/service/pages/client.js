// Requests to the server that the page came from.

const KEY = "standin-token";
const PATIENCE = 5000;

export class Refused extends Error {}
export class Failed extends Error {}

export function keepToken(token) {
  // For this tab alone, and gone with it.
  sessionStorage.setItem(KEY, token);
}

async function get(path) {
  const token = sessionStorage.getItem(KEY);
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (answer.status === 401) throw new Refused(token ? "The token is wrong." : "");
  if (!answer.ok) throw new Failed(`${answer.status} ${answer.statusText}`.trim());
  return answer;
}

// What there is now, and the server's clock with it: this machine's may differ.
export async function overview() {
  const answer = await get("/api/v1/overview");
  const now = Date.parse(answer.headers.get("Date") ?? "") || Date.now();
  return { ...(await answer.json()), now: now / 1000 };
}

export async function preview(name) {
  return (await get(`/api/v1/streams/${encodeURIComponent(name)}/preview.jpg`)).blob();
}
