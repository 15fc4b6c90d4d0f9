// Verification of devices and users by short authentication strings, both sides driven by the SDK.

import { CryptoEvent, VerificationPhase, VerificationRequestEvent, VerifierEvent } from "matrix-js-sdk/lib/crypto-api/index.js";
import { until } from "./session.mjs";

const method = "m.sas.v1";

/** The next request that a client receives. */
export const nextRequest = (client) => until(client, [CryptoEvent.VerificationRequestReceived], (request) => request);

/** Takes both sides through the exchange; resolves once both are done, with the two lists of emoji. */
export async function compareEmoji(asking, answering) {
    await answering.accept();
    await phase(asking, VerificationPhase.Ready);
    const first = await asking.startVerification(method);
    const second = await until(answering, [VerificationRequestEvent.Change], () => undefined, () => answering.verifier);
    const shown = await Promise.all([confirm(first), confirm(second)]);
    await Promise.all([phase(asking, VerificationPhase.Done), phase(answering, VerificationPhase.Done)]);
    return shown;
}

const phase = (request, wanted) => {
    const now = () => request.phase === wanted;
    return until(request, [VerificationRequestEvent.Change], now, now);
};

async function confirm(verifier) {
    let emoji;
    verifier.on(VerifierEvent.ShowSas, (sas) => {
        emoji = sas.sas.emoji.map(([sign]) => sign).join("");
        return sas.confirm();
    });
    await verifier.verify();
    return emoji;
}
