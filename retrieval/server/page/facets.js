// The columns of the gallery with counts over the results; a chosen value narrows them.
import {html, useState} from './ui.js';

const SHORT = 8;

function Values({facet, chosen, onChange}) {
  const [all, setAll] = useState(false);
  const [word, setWord] = useState('');
  const missing = chosen.filter((value) => !facet.values.some((other) => String(other.value) === value));
  const values = [...facet.values, ...missing.map((value) => ({value, count: 0}))];
  const fitting = values.filter(({value}) => String(value).toLowerCase().includes(word.toLowerCase()));
  const shown = fitting.filter(({value}, at) => all || word || at < SHORT || chosen.includes(String(value)));
  return html`${values.length > 20 && html`<input type="search" class="find" aria-label=${`Find a value of ${facet.name}`} placeholder="find"
      value=${word} onInput=${(event) => setWord(event.target.value)} />`}
    <ul>${shown.slice(0, 200).map(({value, count}) => html`<li key=${value}><label>
      <input type="checkbox" checked=${chosen.includes(String(value))} onChange=${(event) =>
        onChange(event.target.checked ? [...chosen, String(value)] : chosen.filter((other) => other !== String(value)))} />
      <span class="value">${String(value)}</span> <span class="count">${count?.toLocaleString('en')}</span></label></li>`)}</ul>
    ${!word && fitting.length > SHORT && html`<button class="plain" aria-expanded=${all} onClick=${() => setAll(!all)}>${all ? 'fewer' : `all ${fitting.length}`}</button>`}`;
}

/** The least and the largest value that the results have. */
function ends({kind, values}) {
  const sorted = values.map(({value}) => (kind === 'number' ? Number(value) : String(value))).sort((a, b) => (a < b ? -1 : 1));
  return [sorted[0], sorted.at(-1)];
}

function Range({facet, chosen, onChange}) {
  const [least, largest] = ends(facet);
  const type = facet.kind === 'date' ? 'date' : 'number';
  const field = (end) => html`<label>${end === 'min' ? 'from' : 'to'} <input type=${type} step="any" value=${chosen?.[end] ?? ''} onChange=${(event) => {
      const next = {...chosen, [end]: event.target.value || undefined};
      onChange(next.min || next.max ? next : []);
    }} /></label>`;
  return html`<div class="range">${field('min')}${field('max')}
    ${least !== undefined && html`<span class="hint">here ${least === largest ? least : `${least} to ${largest}`}</span>`}</div>`;
}

export function Facets({facets, all, filter, change}) {
  const set = (name, wanted) => {
    const next = {...filter};
    if (Array.isArray(wanted) && !wanted.length) delete next[name];
    else next[name] = wanted;
    change({filter: next});
  };
  const count = Object.keys(filter).length;
  // in a folder of folders the label is the folder's name: one list of them is enough
  const same = (one, other) => one.values.length === other.values.length
    && one.values.every(({value}, at) => value === other.values[at].value);
  // what a filter lets through says nothing of the other values that could be chosen too
  const whole = facets.map((facet) => {
    const every = facet.kind === 'text' && filter[facet.name] && all.find(({name}) => name === facet.name);
    return every ? {...facet, values: [...facet.values, ...every.values.filter(({value}) => !facet.values.some((other) => other.value === value))
      .map(({value}) => ({value}))]} : facet;
  });
  const known = whole.filter((facet, at) => filter[facet.name]
    || facet.values.length > 0 && !whole.slice(0, at).some((other) => same(facet, other)));
  if (!known.length) return null;
  return html`<details class="facets" open=${innerWidth >= 900}><summary>Filter${count ? ` (${count})` : ''}</summary>
    ${count > 0 && html`<button class="plain" onClick=${() => change({filter: {}})}>Clear the filter</button>`}
    ${known.map((facet) => html`<fieldset key=${facet.name}><legend>${facet.name}</legend>
      ${facet.kind === 'text'
        ? html`<${Values} facet=${facet} chosen=${filter[facet.name] || []} onChange=${(wanted) => set(facet.name, wanted)} />`
        : html`<${Range} facet=${facet} chosen=${filter[facet.name]} onChange=${(wanted) => set(facet.name, wanted)} />`}
    </fieldset>`)}</details>`;
}
