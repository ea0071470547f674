// Making elements. Text goes in as text only: nothing that came from outside is ever markup.

/** An element with a class and children; strings become text. */
export function element(tag, className = "", ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** An element of a picture, with attributes. */
export function shape(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A button that does something. */
export function button(text, className, act) {
  const made = element("button", className, text);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

export const by = (id) => document.getElementById(id);

/** A time as the server writes it, in the deployment's own offset, cut to the minute. */
export const moment = (iso) => iso.slice(0, 16).replace("T", " ");
