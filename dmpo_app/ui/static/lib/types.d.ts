// Names for the answers of the API, and shapes that several scripts share.

import type { Downloads, Operations } from "./api-types.js";

/** `GET status`, `DELETE votes/{vote_id}`, … */
export type Operation = keyof Operations;
export type Download = keyof Downloads;

/** The JSON that an operation answers. */
export type Answer<Name extends Operation> = Operations[Name]["response"];

export type Values = Record<string, string | number>;
export type Query = Record<string, string | number | boolean | ReadonlyArray<string | number> | null | undefined>;

interface Caller {
  token?: string | null;
  timeoutMs?: number;
}

/** All that a request may have. */
export interface AnyRequest extends Caller {
  params?: Values;
  query?: Query;
  body?: unknown;
  content?: BodyInit;
}

type Request<Given> = Omit<Given, "response"> & Caller;

/** The second argument of `api()`, which may be left out where the operation needs nothing. */
export type RequestOf<Name extends Operation> =
  {} extends Request<Operations[Name]> ? [request?: Request<Operations[Name]>] : [request: Request<Operations[Name]>];

export type Status = Answer<"GET status">;
export type Round = Answer<"GET rounds">["rounds"][number];
export type Adapter = Answer<"GET adapters">["adapters"][number];
export type Assignment = Answer<"GET assignments">["assignments"][number];
export type AssignmentKind = NonNullable<NonNullable<Operations["GET assignments"]["query"]>["kind"]>;
export type NoDuels = NonNullable<Answer<"GET assignments">["no_duels"]>;
export type VoteBody = Operations["POST votes"]["body"];
export type Choice = NonNullable<VoteBody["choice"]>;
export type Side = "left" | "right";
export type Strength = NonNullable<VoteBody["strength"]>;
export type QualityReport = Answer<"GET quality">;
export type AnnotatorQuality = QualityReport["annotators"][number];
export type DamagedPair = Answer<"GET damage">["pairs"][number];
export type StruckAnnotator = QualityReport["struck"][number];
export type Report = Answer<"GET reports">["reports"][number];
export type Share = QualityReport["agreement"];
export type ImportProgress = NonNullable<Answer<"GET imports">["current"]>;
export type Prompt = Answer<"GET prompts">["prompts"][number];

/** Whatever a campaign asks for beyond a choice. */
export interface VotingOptions {
  question: Assignment["question"];
  strength: boolean;
  comment: boolean;
}

/** An assignment whose images are decoded, ready to be shown: a pair, or a set of three or four to rank. */
export interface Pair extends Assignment {
  /** The session that it was handed to. */
  token: string;
  options: VotingOptions;
  images: HTMLImageElement[];
  expiresAt: number;
  /** Higher ones are shown before others. */
  priority: number;
  /** Of a set: the images that have a place, by number from 0, best first. */
  picks?: number[];
  comment?: string;
}

/** The place for what stands in localStorage. */
export type KeyValueStore = Pick<Storage, "getItem" | "setItem" | "removeItem" | "key" | "length">;
