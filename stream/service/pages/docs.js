// Shows /openapi.json. Everything goes in as text.

function make(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

// A type in a few words: "string", "list of StreamStatus", "number or null".
function words(schema = {}) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.map(words).join(" or ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.prefixItems) return `[${schema.prefixItems.map(words).join(", ")}]`;
  if (schema.type === "array") return `list of ${words(schema.items)}`;
  if (schema.additionalProperties && schema.additionalProperties !== true) return `object of ${words(schema.additionalProperties)}`;
  return schema.type ?? "anything";
}

function contentWords(content = {}) {
  return Object.entries(content).map(([type, { schema }]) => {
    const shape = schema ? words(schema) : "";
    return shape && shape !== "anything" ? `${type}: ${shape}` : type;
  }).join(", ");
}

function curl(path, method, operation, schemas) {
  const lines = [`curl ${method === "get" ? "" : `-X ${method.toUpperCase()} `}${location.origin}${path.replace("{name}", "NAME")}`];
  if (operation.security) lines.push("-H 'Authorization: Bearer TOKEN'");
  const body = operation.requestBody?.content?.["application/json"]?.schema;
  if (body) {
    const fields = schemas[words(body)]?.properties ?? {};
    const example = Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.examples?.[0] ?? words(field)]));
    lines.push("-H 'Content-Type: application/json'", `-d '${JSON.stringify(example)}'`);
  }
  return lines.join(" \\\n  ");
}

function pairs(entries) {
  const list = make("dl");
  for (const [name, text] of entries) {
    const term = make("dt");
    term.append(make("code", name));
    list.append(term, make("dd", text));
  }
  return list;
}

function showOperation(path, method, operation, schemas) {
  const box = make("details");
  const head = make("summary");
  const verb = make("b", method.toUpperCase(), "method");
  verb.dataset.method = method;
  head.append(verb, make("code", path), make("span", operation.summary));
  const more = make("div", "", "more");
  more.append(make("pre", curl(path, method, operation, schemas)));
  more.append(pairs(Object.entries(operation.responses).map(([status, { description, content }]) => [
    status, [description, contentWords(content)].filter(Boolean).join(" · "),
  ])));
  box.append(head, more);
  return box;
}

function showShape(name, schema) {
  const box = make("details");
  const head = make("summary");
  head.append(make("code", name));
  const more = make("div", "", "more");
  more.append(make("pre", (schema.description ?? "").trim()));
  more.append(pairs(Object.entries(schema.properties ?? {}).map(([field, type]) => [field, words(type)])));
  box.append(head, more);
  return box;
}

function show(api) {
  const schemas = api.components?.schemas ?? {};
  document.getElementById("version").textContent = `version ${api.info.version}`;
  document.getElementById("about").textContent = api.info.description;
  for (const tag of api.tags) {
    const section = make("section");
    section.append(make("h2", tag.name), make("p", tag.description));
    for (const [path, methods] of Object.entries(api.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        if (operation.tags?.includes(tag.name)) section.append(showOperation(path, method, operation, schemas));
      }
    }
    document.getElementById("operations").append(section);
  }
  document.getElementById("shapes").append(...Object.entries(schemas).map(([name, schema]) => showShape(name, schema)));
}

try {
  show(await (await fetch("/openapi.json")).json());
} catch (error) {
  document.getElementById("about").textContent = `The description could not be loaded: ${error.message}`;
}
