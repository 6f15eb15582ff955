// Another model: encoded beside the one that answers, compared with it, searched together with it, switched to and back in one step.
import {html, useEffect, useState, Working, announce, percent, plural} from './ui.js';
import {get, post} from './api.js';

function Comparison({found, show}) {
  const results = Object.entries(found.results);
  return html`<h3>What changes</h3>
    <table><caption>${plural(found.num_queries, 'picture')} searched for with both models</caption><tbody>
      <tr><th scope="row">of the first ${found.k} results in common</th><td>${percent(found.overlap)}</td></tr>
      ${found.rank_correlation != null && html`<tr><th scope="row">correlation of their order</th><td>${found.rank_correlation.toFixed(2)}</td></tr>`}
      <tr><th scope="row">with another first result</th><td>${percent(found.changed_first)}</td></tr>
      <tr><th scope="row">only in the old, only in the new</th><td>${found.only_old.toLocaleString('en')}, ${found.only_new.toLocaleString('en')}</td></tr></tbody></table>
    ${results.length > 0 && html`<table><caption>By the labels, in percent</caption><thead><tr><th scope="col">metric</th><th scope="col">old</th><th scope="col">new</th></tr></thead>
      <tbody>${results.map(([name, [before, after]]) => html`<tr><th scope="row">${name}</th><td>${before.toFixed(1)}</td>
        <td class=${after > before ? 'better' : after < before ? 'worse' : ''}>${after.toFixed(1)}</td></tr>`)}</tbody></table>`}
    ${found.most_changed.length > 0 && html`<h3>Pictures that change most</h3><ul class="changed">${found.most_changed.map(({id, overlap, before, after}) => html`<li key=${id}>
      <button class="plain" onClick=${() => show(id)}>${id}</button> <span>${percent(overlap)} in common, first ${before} → <strong>${after}</strong></span></li>`)}</ul>`}`;
}

/** How far the new model is, and how much of its rankings is there already. */
function SoFar({state}) {
  return html`<table><caption>So far</caption><tbody>
    <tr><th scope="row">encoded by the new model</th><td>${percent(state.share)}</td></tr>
    ${state.agreement != null && html`<tr><th scope="row">among these, first 10 results that the map finds</th><td>${percent(state.agreement)}</td></tr>`}
    ${state.comparison && html`<tr><th scope="row">among these, first ${state.comparison.k} results in common with the present model</th><td>${percent(state.comparison.overlap)}</td></tr>`}</tbody></table>`;
}

export function ModelView({info, refresh, report, readOnly, show}) {
  const [state, setState] = useState(null);
  const [busy, setBusy] = useState(false);
  const look = () => get('v1/model/reload').then(setState, report);
  useEffect(() => { look(); }, [info.generation]);
  const running = state?.state === 'running';
  useEffect(() => {
    if (!running) return;
    const timer = setTimeout(look, 700);
    return () => clearTimeout(timer);
  }, [state]);
  const act = async (task, said) => {
    setBusy(true);
    try {
      setState(await task());
      await refresh();
      announce(said);
    } catch (error) {
      report(error);
    }
    setBusy(false);
  };
  if (!state) return null;
  const use = (which) => act(() => post('v1/model', {use: which}), which === 'both' ? 'Both models are in use' : `The ${which} model is in use`);
  const both = state.use === 'both', loaded = state.comparison && !running;
  return html`<section class="marks" aria-label="Another model">
    <p>Another model encodes every picture beside the one that answers, what was shown most first, and the results of both are compared. Nothing changes until you switch, and you can always switch back. Meanwhile both can be searched as one: a map, learned from what both have encoded, stands in for the rest.</p>
    <p class="tally">In use: ${both ? html`<strong>both</strong> models` : html`the <strong>${state.use === 'new' ? 'new' : 'present'}</strong> model`}, ${info.model}.</p>
    ${!state.can_load && html`<p class="hint">This server knows no other model: start it with <code>--reload</code>.</p>`}
    <p class="buttons">
      ${state.can_load && html`<button class=${loaded ? '' : 'primary'} disabled=${readOnly || busy || running || both} onClick=${() => act(() => post('v1/model/reload', {}), 'Loading the other model')}>${loaded ? 'Load it again' : 'Load the other model'}</button>`}
      ${state.agreement != null && !both && html`<button disabled=${readOnly || busy} onClick=${() => use('both')}>Search with both</button>`}
      ${loaded && state.use !== 'new' && html`<button class="primary" disabled=${readOnly || busy} onClick=${() => use('new')}>Switch to the new model</button>`}
      ${(both || (loaded && state.use === 'new')) && html`<button class=${state.use === 'new' ? 'primary' : ''} disabled=${readOnly || busy} onClick=${() => use('old')}>Back to the old model</button>`}
    </p>
    ${running && html`<${Working} title=${state.total ? `${percent((state.done || 0) / state.total)} done` : 'Working'} progress=${state} />`}
    ${state.share != null && (running || (both && state.share < 1)) && html`<${SoFar} state=${state} />`}
    ${state.error && html`<p role="alert" class="problem">${state.error}</p>`}
    ${loaded && html`<${Comparison} found=${state.comparison} show=${show} />`}
  </section>`;
}
