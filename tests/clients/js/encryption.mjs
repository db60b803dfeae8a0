/*
 * What the tests' client on matrix-js-sdk does with encryption; the SDK leaves that to its Rust part.
 */

import * as sdk from "matrix-js-sdk";
import { CryptoEvent, VerificationPhase, VerifierEvent } from "matrix-js-sdk/lib/crypto-api/index.js";

/** What a person remembers or sees: the recovery key, verifications under way, emoji on the screen. */
export class Secrets {
    constructor(changed) {
        this.changed = changed;
        this.recoveryKey = null;
        this.request = null;
        this.verifier = null;
        this.sas = null;
        this.done = null;
    }

    callbacks() {
        return {
            getSecretStorageKey: async ({ keys }) => {
                if (!this.recoveryKey) throw new Error("nobody has typed the recovery key");
                return [Object.keys(keys)[0], this.recoveryKey];
            },
            cacheSecretStorageKey: (id, info, key) => void (this.recoveryKey = key),
        };
    }

    /** Follow a request for verification. */
    follow(request) {
        this.request = request;
        this.sas = this.verifier = null;
        this.done = null;
        request.on("change", () => {
            if (request.verifier && request.verifier !== this.verifier) this.show(request.verifier);
            this.changed();
        });
        this.changed();
    }

    show(verifier) {
        this.verifier = verifier;
        verifier.on(VerifierEvent.ShowSas, (sas) => {
            this.sas = sas;
            this.changed();
        });
        verifier.verify().then(
            () => this.end("verified"),
            (error) => this.end(`failed: ${error}`),
        );
    }

    end(how) {
        this.done = how;
        this.changed();
    }
}

/** Give a client that has signed in its keys. */
export async function encrypted(talker) {
    const { client, secrets } = talker;
    await client.initRustCrypto({ useIndexedDB: false });
    client.on(CryptoEvent.VerificationRequestReceived, (request) => secrets.follow(request));
    for (const name of [
        CryptoEvent.DevicesUpdated,
        CryptoEvent.KeysChanged,
        CryptoEvent.UserTrustStatusChanged,
        CryptoEvent.KeyBackupStatus,
        CryptoEvent.KeyBackupSessionsRemaining,
    ]) {
        client.on(name, talker.changed);
    }
}

const crypto = (talker) => talker.client.getCrypto();

/** Ask for the password where the server wants it. */
const withPassword = (talker, password) => async (request) => {
    try {
        return await request(null);
    } catch (error) {
        if (error.httpStatus !== 401 || !password) throw error;
        return request({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: talker.client.getUserId() },
            password,
            session: error.data.session,
        });
    }
};

export const ENCRYPTION = {
    /** Cross-signing keys, secret storage, and a backup, as at a first sign-in. */
    async set_up_recovery(talker, { password }) {
        await crypto(talker).bootstrapCrossSigning({
            authUploadDeviceSigningKeys: withPassword(talker, password),
        });
        const key = await crypto(talker).createRecoveryKeyFromPassphrase();
        talker.secrets.recoveryKey = key.privateKey;
        await crypto(talker).bootstrapSecretStorage({
            createSecretStorageKey: async () => key,
            setupNewKeyBackup: true,
        });
        await crypto(talker).checkKeyBackupAndEnable();
        return key.encodedPrivateKey;
    },
    /** A new device: the person types the recovery key. */
    async recover(talker, { key }) {
        const { decodeRecoveryKey } = await import("matrix-js-sdk/lib/crypto-api/index.js");
        talker.secrets.recoveryKey = decodeRecoveryKey(key);
        await crypto(talker).bootstrapCrossSigning({});
        await crypto(talker).loadSessionBackupPrivateKeyFromSecretStorage();
        await crypto(talker).checkKeyBackupAndEnable();
        const { imported, total } = await crypto(talker).restoreKeyBackup();
        return { imported, total };
    },
    async reset_cross_signing(talker, { password }) {
        await crypto(talker).bootstrapCrossSigning({
            setupNewCrossSigning: true,
            authUploadDeviceSigningKeys: withPassword(talker, password),
        });
    },
    /** As the server has it; the SDK asks once only. */
    async backup(talker) {
        const info = await talker.client.http.authedRequest("GET", "/room_keys/version");
        const active = await crypto(talker).getActiveSessionBackupVersion();
        return info && { version: info.version, count: info.count, active };
    },
    cross_signing: (talker) => crypto(talker).getCrossSigningStatus(),
    devices: async (talker, { user }) => {
        const found = await crypto(talker).getUserDeviceInfo([user], true);
        return [...(found.get(user)?.keys() ?? [])].sort();
    },
    async trust(talker, { user, device }) {
        const of = await crypto(talker).getUserVerificationStatus(user);
        const status = device && (await crypto(talker).getDeviceVerificationStatus(user, device));
        return {
            user: of.isCrossSigningVerified(),
            device: Boolean(status?.crossSigningVerified),
            signed: Boolean(status?.signedByOwner),
        };
    },
    /** How an event would be marked: 0 none, 1 grey, 2 red; and why. */
    async shield(talker, { room, event }) {
        const found = await crypto(talker).getEncryptionInfoForEvent(
            await talker.event(room, event),
        );
        return found && { colour: found.shieldColour, reason: found.shieldReason };
    },
    async ask_to_verify(talker, { user, device, room }) {
        const request = room
            ? await crypto(talker).requestVerificationDM(user, room)
            : await crypto(talker).requestDeviceVerification(user, device);
        talker.secrets.follow(request);
    },
    accept_verification: (talker) => talker.secrets.request.accept(),
    async start_sas(talker) {
        const verifier = await talker.secrets.request.startVerification("m.sas.v1");
        if (verifier !== talker.secrets.verifier) talker.secrets.show(verifier);
    },
    async confirm_sas(talker) {
        await talker.secrets.sas.confirm();
    },
    verification: (talker) => {
        const { request, sas, done } = talker.secrets;
        return {
            from: request?.otherUserId ?? null,
            phase: request ? VerificationPhase[request.phase] : null,
            emoji: sas?.sas.emoji?.map(([emoji]) => emoji) ?? null,
            done,
        };
    },
    async remove_devices(talker, { devices, password }) {
        await withPassword(talker, password)((auth) => talker.client.deleteMultipleDevices(devices, auth ?? undefined));
    },
    dehydrate: (talker) => crypto(talker).startDehydration({ createNewKey: true }),
    dehydration: (talker) => crypto(talker).isDehydrationSupported(),
};
