/** The latest requests with their phases, and the log of refused ones. */
(() => {
  "use strict";
  const { html } = fllm;
  const { Bars, PHASES, seconds } = fllm.phases;

  function clock(time) {
    return new Date(1000 * time).toLocaleTimeString("en", { hour12: false });
  }

  /** Return the start of the axis, and its length in seconds: what the requests span, a minute at most. */
  function axisOf(requests, now) {
    const first = Math.min(...requests.map((each) => each.received_at), now);
    const start = Math.max(first, now - 60);
    return { start, span: Math.max(now - start, 0.1) };
  }

  /** Return the phases of a request, cut at the start of the axis, and where they begin. */
  function placed(request, axis) {
    let cut = Math.max(0, axis.start - request.received_at);
    const phases = {};
    for (const name of PHASES) {
      const length = request[name] ?? 0;
      phases[name] = Math.max(0, length - cut);
      cut = Math.max(0, cut - length);
    }
    return { phases, start: Math.max(0, request.received_at - axis.start) };
  }

  function Requests({ requests, now }) {
    const axis = axisOf(requests, now);
    return html`<section aria-labelledby="requests-title"><h2 id="requests-title">Requests</h2>
      ${!requests.length && html`<p class="note">No request yet.</p>`}
      ${requests.length > 0 && html`<div class="scroll"><table class="table requests"><thead><tr><th scope="col">Received</th><th scope="col">Request</th>
        <th scope="col">Status</th><th scope="col" class="axis">last ${Math.round(axis.span)} s <span class="visually-hidden">as bars; the columns queue, prefill and decode say the same</span></th>
        ${PHASES.map((name) => html`<th scope="col" class="number"><i class=${`swatch phase-${name}`}></i>${name}</th>`)}
        <th scope="col" class="number">Prompt</th><th scope="col" class="number">Cached</th><th scope="col" class="number">Generated</th></tr></thead>
      <tbody>${requests.map((request) => html`<tr key=${request.request_id}><td>${clock(request.received_at)}</td>
        <th scope="row"><span class="path">${request.path}</span><span class="note">${request.model}</span></th>
        <td><span class=${`state state-${request.status}`}>${request.status}</span></td>
        <td class="axis"><${Bars} ...${placed(request, axis)} span=${axis.span} /></td>
        ${PHASES.map((name) => html`<td class="number">${seconds(request[name])}</td>`)}
        <td class="number">${request.prompt_tokens}</td><td class="number">${request.cached_tokens}</td><td class="number">${request.generated_tokens}</td></tr>`)}
      </tbody></table></div>`}</section>`;
  }

  function Refused({ refused }) {
    return html`<section aria-labelledby="refused-title"><h2 id="refused-title">Refused requests</h2>
      ${!refused.length && html`<p class="note">None was refused.</p>`}
      ${refused.length > 0 && html`<div class="scroll"><table class="table"><thead><tr><th scope="col">Time</th><th scope="col">Request</th><th scope="col">Status</th><th scope="col">Reason</th></tr></thead>
      <tbody>${refused.map((each) => html`<tr><td>${clock(each.time)}</td><th scope="row"><span class="path">${each.method} ${each.path}</span></th>
        <td>${each.status}${each.code && html` <code>${each.code}</code>`}</td><td>${each.message}</td></tr>`)}</tbody></table></div>`}</section>`;
  }

  fllm.requests = { Requests, Refused };
})();
