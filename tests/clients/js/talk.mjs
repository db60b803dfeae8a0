/*
 * matrix-js-sdk as the tests' client: does what it is told over a Unix socket, and tells what it sees.
 *
 * Started with the socket's path. One JSON object a line; the vocabulary is described in
 * ../conversation.py. Every connection has clients of its own, which end with it.
 */

import net from "node:net";
import readline from "node:readline";
import { setImmediate as nextTick, setTimeout as sleep } from "node:timers/promises";

// What the SDK logs goes to standard error, where the tests collect it.
console.log = console.info = console.debug = console.trace = console.error;

const sdk = await import("matrix-js-sdk");
const { SlidingSync } = await import("matrix-js-sdk/lib/sliding-sync.js");
const { ENCRYPTION, Secrets, encrypted } = await import("./encryption.mjs");

const silent = () => {};
const complaints = {
    trace: silent,
    debug: silent,
    info: silent,
    warn: (...what) => console.error("warning:", ...what),
    error: (...what) => console.error("error:", ...what),
    getChild: () => complaints,
};

const SHOWN_WITHIN_MS = 10_000;

const CHANGES = [
    sdk.ClientEvent.Sync,
    sdk.ClientEvent.Room,
    sdk.ClientEvent.DeleteRoom,
    sdk.ClientEvent.AccountData,
    sdk.RoomEvent.Timeline,
    sdk.RoomEvent.TimelineReset,
    sdk.RoomEvent.LocalEchoUpdated,
    sdk.RoomEvent.Redaction,
    sdk.RoomEvent.Receipt,
    sdk.RoomEvent.Tags,
    sdk.RoomEvent.AccountData,
    sdk.RoomEvent.Name,
    sdk.RoomEvent.MyMembership,
    sdk.RoomEvent.UnreadNotifications,
    sdk.RoomMemberEvent.Membership,
    sdk.RoomMemberEvent.Name,
    sdk.RoomMemberEvent.Typing,
    sdk.RoomStateEvent.Events,
    sdk.ThreadEvent.New,
    sdk.ThreadEvent.Update,
    sdk.ThreadEvent.NewReply,
    sdk.MatrixEventEvent.Replaced,
    sdk.MatrixEventEvent.RelationsCreated,
    sdk.MatrixEventEvent.Decrypted,
];

/** Of whom a request wants one-time keys. */
const asked = (options) =>
    Object.entries(JSON.parse(options.body).one_time_keys).flatMap(([user, devices]) =>
        Object.keys(devices).map((device) => [user, device]),
    );

/** A user's device, and its network, which the tests can cut. */
class Talker {
    constructor(baseUrl, changed) {
        this.baseUrl = baseUrl;
        this.changed = changed;
        this.cut = new AbortController();
        this.only = ""; // what paths end with to which there is no connection when it is cut
        this.loseAnswers = 0;
        this.calls = [];
        this.letters = null; // what devices sent each other, once the tests want to know
        this.secrets = new Secrets(changed);
        this.client = this.make({});
    }

    make(credentials) {
        return sdk.createClient({
            baseUrl: this.baseUrl,
            timelineSupport: true,
            disableVoip: true,
            logger: complaints,
            fetchFn: (url, options) => this.fetch(url, options),
            cryptoCallbacks: this.secrets.callbacks(),
            ...credentials,
        });
    }

    async fetch(url, options) {
        const path = new URL(url).pathname;
        const cut = path.endsWith(this.only) && this.cut.signal;
        const ends = [cut, options?.signal].filter(Boolean);
        let answer;
        try {
            answer = await globalThis.fetch(url, { ...options, signal: AbortSignal.any(ends) });
        } catch (error) {
            if (this.letters && path.endsWith("/keys/claim"))
                for (const [user, device] of asked(options)) this.witnessed("unanswered", user, device);
            throw error;
        }
        const method = options?.method ?? "GET";
        if (this.loseAnswers > 0 && method === "PUT") {
            this.loseAnswers -= 1;
            throw new TypeError("the tests lost the answer");
        }
        this.calls.push([method, path, answer.status]);
        if (this.letters) await this.witness(path, options, answer);
        return answer;
    }

    /** Remember encrypted messages between devices: sent ones that were acknowledged, received ones, and keys that were not to be had. */
    async witness(path, options, answer) {
        const end = (content) => Object.values(content.ciphertext ?? {})[0]?.body?.slice(-43) ?? "";
        if (answer.status !== 200) return;
        if (path.includes("/sendToDevice/m.room.encrypted/")) {
            for (const [user, devices] of Object.entries(JSON.parse(options.body).messages))
                for (const [device, content] of Object.entries(devices))
                    this.witnessed("sent", user, device, end(content));
        } else if (path.endsWith("/keys/claim")) {
            const { one_time_keys: given, failures = {} } = await answer.clone().json();
            for (const [user, device] of asked(options)) {
                const server = user.slice(user.indexOf(":") + 1);
                if (!given[user]?.[device])
                    this.witnessed(server in failures ? "unreachable" : "refused", user, device);
            }
        } else if (path.endsWith("/sync")) {
            for (const event of (await answer.clone().json()).to_device?.events ?? [])
                if (event.type === "m.room.encrypted")
                    this.witnessed("received", event.sender, null, end(event.content));
        }
    }

    witnessed(what, user, device, which = "") {
        this.letters.push([what, user, device, which, Date.now() / 1000]);
    }

    /** Go on as the user that an answer to /login or /register names. */
    signIn(answer) {
        this.client = this.make({
            userId: answer.user_id,
            deviceId: answer.device_id,
            accessToken: answer.access_token,
        });
        for (const name of CHANGES) this.client.on(name, this.changed);
        return { user_id: answer.user_id, device_id: answer.device_id };
    }

    room(id) {
        const room = this.client.getRoom(id);
        if (!room) throw new Error(`${id} is not known here`);
        return room;
    }

    /** An event that is on the screen; somebody who wants to act on it waits until it is. */
    async event(roomId, id) {
        const latest = Date.now() + SHOWN_WITHIN_MS;
        while (Date.now() < latest) {
            const event = this.room(roomId).findEventById(id);
            if (event) return event;
            await sleep(20);
        }
        throw new Error(`${id} is not known here`);
    }

    synced() {
        return new Promise((resolve) => {
            const look = () => {
                if (!["PREPARED", "SYNCING"].includes(this.client.getSyncState())) return;
                this.client.off(sdk.ClientEvent.Sync, look);
                resolve({});
            };
            this.client.on(sdk.ClientEvent.Sync, look);
            look();
        });
    }
}

// What clients can be told to do: (talker, what else was said) => what to answer.

const ACCOUNTS = {
    async register(talker, { user, password, token }) {
        let auth;
        auth = new sdk.InteractiveAuth({
            matrixClient: talker.client,
            supportedStages: token ? ["m.login.registration_token", "m.login.dummy"] : ["m.login.dummy"],
            doRequest: (dict) =>
                talker.client.registerRequest({ username: user, password, auth: dict ?? undefined }),
            stateUpdated: (stage, status) => {
                if (status.errcode) throw new Error(`${stage}: ${status.errcode}`);
                if (stage === "m.login.registration_token") void auth.submitAuthDict({ type: stage, token });
            },
            requestEmailToken: () => Promise.reject(new Error("no mail")),
        });
        return talker.signIn(await auth.attemptAuth());
    },
    async login(talker, { user, password }) {
        return talker.signIn(
            await talker.client.loginRequest({
                type: "m.login.password",
                identifier: { type: "m.id.user", user },
                password,
            }),
        );
    },
    logout: (talker) => talker.client.logout(true),
    async start(
        talker,
        { lazy = false, limit = 20, threads = false, left = false, encryption = false, sliding = false },
    ) {
        if (encryption) await encrypted(talker);
        await talker.client.startClient({
            slidingSync: sliding ? slidingSync(talker, limit) : undefined,
            initialSyncLimit: limit,
            lazyLoadMembers: lazy,
            threadSupport: threads,
            pendingEventOrdering: "detached", // else own messages stay where they were typed
            pollTimeout: 10_000,
        });
        await talker.synced();
        if (left) await talker.client.syncLeftRooms();
    },
    pause(talker, { only = "" }) {
        talker.only = only;
        talker.cut.abort(new TypeError("the tests cut the network"));
    },
    async resume(talker) {
        talker.cut = new AbortController();
        talker.client.retryImmediately();
        return talker.synced();
    },
    lose_answers: (talker, { count }) => void (talker.loseAnswers = count),
    calls: (talker) => talker.calls.splice(0),
    /** Encrypted messages between devices since the last call; the first call begins to record. */
    letters: (talker) => {
        const found = talker.letters ?? [];
        talker.letters = [];
        return found;
    },
};

const ROOMS = {
    create_room: async (talker, { options }) => (await talker.client.createRoom(options)).room_id,
    invite: (talker, { room, user }) => talker.client.invite(room, user),
    join: async (talker, { room }) => (await talker.client.joinRoom(room)).roomId,
    knock: async (talker, { room, reason }) => (await talker.client.knockRoom(room, { reason })).room_id,
    leave: (talker, { room }) => talker.client.leave(room),
    forget: (talker, { room }) => talker.client.forget(room),
    kick: (talker, { room, user, reason }) => talker.client.kick(room, user, reason),
    ban: (talker, { room, user, reason }) => talker.client.ban(room, user, reason),
    unban: (talker, { room, user }) => talker.client.unban(room, user),
    upgrade: async (talker, { room, version }) =>
        (await talker.client.upgradeRoom(room, version)).replacement_room,
    set_state: async (talker, { room, type, content, key = "" }) =>
        (await talker.client.sendStateEvent(room, type, content, key)).event_id,
};

const MESSAGES = {
    send: async (talker, { room, content, type = "m.room.message", txn }) =>
        (await talker.client.sendEvent(room, null, type, content, txn)).event_id,
    /** As in Element: the thread is opened before somebody writes in it, and its beginning is there. */
    async say_in_thread(talker, { room, root, body }) {
        const event = await talker.event(room, root);
        const opened = talker.room(room);
        const thread = opened.getThread(root) ?? opened.createThread(root, event, [event], true);
        while (!thread.initialEventsFetched) await nextTick();
        return (await talker.client.sendTextMessage(room, root, body)).event_id;
    },
    redact: async (talker, { room, event, reason }) =>
        (await talker.client.redactEvent(room, event, undefined, { reason })).event_id,
    receipt: async (talker, { room, event, type = "m.read", unthreaded = false }) =>
        talker.client.sendReadReceipt(await talker.event(room, event), type, unthreaded),
    read_markers: async (talker, { room, fully, read, hidden }) =>
        talker.client.setRoomReadMarkers(
            room,
            fully,
            read && (await talker.event(room, read)),
            hidden && (await talker.event(room, hidden)),
        ),
    typing: (talker, { room, on }) => talker.client.sendTyping(room, on, 20_000),
    async resend(talker, { room }) {
        const pending = talker.room(room).getPendingEvents().filter((event) => event.status === "not_sent");
        const sent = [];
        for (const event of pending) sent.push((await talker.client.resendEvent(event, talker.room(room))).event_id);
        return sent;
    },
    /** Fill the room's timeline towards its beginning; false at the end. */
    async back(talker, { room, limit }) {
        const timelines = linked(talker.room(room));
        return talker.client.paginateEventTimeline(timelines[0], { backwards: true, limit });
    },
    /** Start from one event in the middle and read on to both sides. */
    async around(talker, { room, event, limit }) {
        const set = talker.room(room).getUnfilteredTimelineSet();
        const timeline = await talker.client.getEventTimeline(set, event);
        const window = new sdk.TimelineWindow(talker.client, set, { windowLimit: 1000 });
        await window.load(event, limit);
        for (const direction of ["b", "f"]) {
            while (window.canPaginate(direction)) await window.paginate(direction, limit);
        }
        return { found: timeline !== null, events: window.getEvents().map(shown) };
    },
    async load_members(talker, { room }) {
        await talker.room(room).loadMembersIfNeeded();
        return talker.room(room).getMembers().map((member) => member.userId);
    },
    reactions(talker, { room, event }) {
        const relations = talker.room(room).relations.getChildEventsForEvent(event, "m.annotation", "m.reaction");
        const sorted = relations?.getSortedAnnotationsByKey() ?? [];
        const senders = sorted.map(([key, events]) => [key, [...events].map((one) => one.getSender())]);
        return Object.fromEntries(senders.filter(([, found]) => found.length)); // a redacted one leaves its key
    },
    async thread_list(talker, { room }) {
        await talker.room(room).createThreadsTimelineSets();
        await talker.room(room).fetchRoomThreads();
        return talker.room(room).getThreads().map((thread) => thread.id);
    },
    async fill_thread(talker, { room, root, limit }) {
        const thread = talker.room(room).getThread(root);
        while (await talker.client.paginateEventTimeline(thread.liveTimeline, { backwards: true, limit }));
        return thread.events.map(shown);
    },
};

const OWN = {
    /** Any method of the SDK's client that takes and gives JSON. */
    sdk: (talker, { method, args = [] }) => talker.client[method](...args),
    set_profile: (talker, { key, value }) => talker.client.setProfileInfo(key, { [key]: value }),
    profile: (talker, { user }) => talker.client.getProfileInfo(user),
    account_data: (talker, { type }) => talker.client.getAccountData(type)?.getContent() ?? null,
    push_rules(talker) {
        const rules = Object.entries(talker.client.pushRules?.global ?? {});
        const shownRule = ({ rule_id, enabled, actions }) => ({ rule_id, enabled, actions: actions.length });
        return Object.fromEntries(rules.map(([kind, found]) => [kind, found.map(shownRule)]));
    },
    /** Whether the SDK would notify about an event, by the rules that it knows. */
    notifies: async (talker, { room, event }) =>
        talker.client.getPushActionsForEvent(await talker.event(room, event))?.notify ?? false,
};

const VIEWS = {
    rooms: (talker) =>
        Object.fromEntries(talker.client.getRooms().map((room) => [room.roomId, room.getMyMembership()])),
    view: (talker, { room }) => {
        const known = talker.client.getRoom(room);
        return known && view(talker.client, known);
    },
};

const COMMANDS = { ...ACCOUNTS, ...ROOMS, ...MESSAGES, ...OWN, ...VIEWS, ...ENCRYPTION };

/** Sliding sync over all rooms, with the state that Element asks for. */
function slidingSync(talker, limit) {
    const state = [
        ["m.room.member", "$ME"],
        ["m.room.member", "$LAZY"],
        ...["name", "topic", "avatar", "canonical_alias", "create", "power_levels", "join_rules"].map(
            (kind) => [`m.room.${kind}`, ""],
        ),
        ...["encryption", "history_visibility", "tombstone"].map((kind) => [`m.room.${kind}`, ""]),
    ];
    const all = { ranges: [[0, 99]], required_state: state, timeline_limit: limit };
    const lists = new Map([["all", all]]);
    return new SlidingSync(talker.baseUrl, lists, all, talker.client, 10_000);
}

/** The room's timelines that the SDK has joined to the live one, oldest first. */
function linked(room) {
    const timelines = [room.getLiveTimeline()];
    let earlier;
    while ((earlier = timelines[0].getNeighbouringTimeline("b"))) {
        if (timelines.includes(earlier)) break; // after resets, the SDK may link them in a ring
        timelines.unshift(earlier);
    }
    return timelines;
}

function shown(event) {
    const relation = event.getWireContent()["m.relates_to"] ?? {};
    return {
        id: event.getId(),
        type: event.getType(),
        sender: event.getSender(),
        key: event.getStateKey() ?? null,
        body: event.getContent().body ?? null,
        content: event.getContent(),
        rel_type: relation.rel_type ?? null,
        rel_event: relation.event_id ?? null,
        rel_key: relation.key ?? null,
        redacted: event.isRedacted(),
        txn: event.getUnsigned().transaction_id ?? null,
        status: event.status,
    };
}

function view(client, room) {
    const state = room.getLiveTimeline().getState("f");
    const me = client.getUserId();
    return {
        membership: room.getMyMembership(),
        name: room.name,
        topic: state.getStateEvents("m.room.topic", "")?.getContent().topic ?? null,
        alias: room.getCanonicalAlias(),
        version: room.getVersion(),
        join_rule: room.getJoinRule(),
        replacement: state.getStateEvents("m.room.tombstone", "")?.getContent().replacement_room ?? null,
        members: Object.fromEntries(
            room.getMembers().map((member) => [
                member.userId,
                {
                    membership: member.membership ?? null,
                    name: member.rawDisplayName,
                    avatar: member.getMxcAvatarUrl() ?? null,
                },
            ]),
        ),
        joined: room.getJoinedMemberCount(),
        timeline: linked(room).flatMap((timeline) => timeline.getEvents().map(shown)),
        pending: room.getPendingEvents().map(shown),
        threads: Object.fromEntries(
            room.getThreads().map((thread) => [
                thread.id,
                { events: thread.events.map(shown), receipts: receipts(thread, room, me) },
            ]),
        ),
        typing: room.getMembers().filter((member) => member.typing).map((member) => member.userId),
        receipts: receipts(room, room, me),
        fully_read: room.getAccountData("m.fully_read")?.getContent().event_id ?? null,
        tags: room.tags,
        unread: room.getRoomUnreadNotificationCount("total"),
        highlights: room.getRoomUnreadNotificationCount("highlight"),
        invited_by: room.getMember(me)?.events.member?.getSender() ?? null,
    };
}

/** By receipt type and user; what the SDK made up for messages of its own accord is left out. */
function receipts(place, room, me) {
    const found = { "m.read": {}, "m.read.private": {} };
    for (const { userId } of [...room.getMembers(), { userId: me }]) {
        for (const type of Object.keys(found)) {
            const receipt = place.getReadReceiptForUserId(userId, true, type);
            if (receipt) found[type][userId] = receipt.eventId;
        }
    }
    return found;
}

function failure(error) {
    return {
        errcode: error.errcode ?? null,
        status: error.httpStatus ?? null,
        text: `${error.name}: ${error.message}`,
    };
}

function serve(connection) {
    const talkers = new Map();
    const say = (line) => connection.writable && connection.write(JSON.stringify(line) + "\n");
    const lines = readline.createInterface({ input: connection });
    lines.on("error", () => {}); // the test is over
    lines.on("line", async (line) => {
        const { id, who, do: command, ...rest } = JSON.parse(line);
        try {
            if (command === "new") {
                talkers.set(who, new Talker(rest.base_url, () => say({ changed: who })));
                say({ id, ok: {} });
            } else {
                say({ id, ok: (await COMMANDS[command](talkers.get(who), rest)) ?? null });
            }
        } catch (error) {
            say({ id, error: failure(error) });
        }
    });
    connection.on("error", () => {});
    connection.on("close", () => {
        for (const talker of talkers.values()) talker.client.stopClient();
    });
}

// Of a client that has been stopped, or of a request nobody waits for any more.
process.on("unhandledRejection", (error) => console.error("unhandled:", error));

net.createServer(serve).listen(process.argv[2], () => process.stdout.write("ready\n"));
