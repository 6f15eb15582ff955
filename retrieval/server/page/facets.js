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
      <span class="value">${String(value)}</span> <span class="count">${count.toLocaleString('en')}</span></label></li>`)}</ul>
    ${!word && fitting.length > SHORT && html`<button class="plain" aria-expanded=${all} onClick=${() => setAll(!all)}>${all ? 'fewer' : `all ${fitting.length}`}</button>`}`;
}

function Range({facet, chosen, onChange}) {
  const type = facet.kind === 'date' ? 'date' : 'number';
  const field = (end) => html`<label>${end === 'min' ? 'from' : 'to'} <input type=${type} step="any" value=${chosen?.[end] ?? ''}
    placeholder=${facet[end] ?? ''} onChange=${(event) => {
      const next = {...chosen, [end]: event.target.value || undefined};
      onChange(next.min || next.max ? next : []);
    }} /></label>`;
  return html`<div class="range">${field('min')}${field('max')}
    ${facet.min != null && html`<span class="hint">${facet.min} to ${facet.max}</span>`}</div>`;
}

export function Facets({facets, filter, change}) {
  const set = (name, wanted) => {
    const next = {...filter};
    if (Array.isArray(wanted) && !wanted.length) delete next[name];
    else next[name] = wanted;
    change({filter: next});
  };
  const count = Object.keys(filter).length;
  const known = facets.filter((facet) => facet.kind !== 'text' || facet.values.length || filter[facet.name]);
  if (!known.length) return null;
  return html`<details class="facets" open=${innerWidth >= 900}><summary>Filter${count ? ` (${count})` : ''}</summary>
    ${count > 0 && html`<button class="plain" onClick=${() => change({filter: {}})}>Clear the filter</button>`}
    ${known.map((facet) => html`<fieldset key=${facet.name}><legend>${facet.name}</legend>
      ${facet.kind === 'text'
        ? html`<${Values} facet=${facet} chosen=${filter[facet.name] || []} onChange=${(wanted) => set(facet.name, wanted)} />`
        : html`<${Range} facet=${facet} chosen=${filter[facet.name]} onChange=${(wanted) => set(facet.name, wanted)} />`}
    </fieldset>`)}</details>`;
}
