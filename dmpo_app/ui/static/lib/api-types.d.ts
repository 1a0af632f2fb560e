// Types of the JSON API. Written by scripts/api_types.py from the OpenAPI description; not to be edited.

export interface AdapterOut {
  version: number;
  parent: number | null;
  live: boolean;
  state: VersionState;
  state_words: string;
  votes: number;
  taken_back: number;
  proven: boolean;
  verdict: VerdictOut | null;
  metrics: Record<string, number | null>;
  created_at: string | null;
  download: string | null;
  learned: Array<string>;
}

export interface AdaptersAnswer {
  live_version: number;
  adapters: Array<AdapterOut>;
}

export interface AgreementOut {
  version: string;
  sha256: string;
  at: string;
  text: string | null;
}

export interface AnnotatorQuality {
  name: string;
  votes: number;
  agreement: Share;
  repeats: Share;
  gold: Share;
  left: Share;
  left_p: number | null;
  disagreement_p: number | null;
  median_ms: number | null;
  fast: Share;
  ties: Share;
  accuracy: number;
  compared: number;
  relative: number;
  weight: number;
  counts: number;
  vote_share: number;
  established: boolean;
  flags: Array<string>;
}

export type AssignmentKind = "label" | "duels";

export interface AssignmentOut {
  id: string;
  prompt: string;
  left: string;
  right: string;
  more: Array<string>;
  question: Question;
  asks: Array<"strength" | "comment">;
  expires_at: string;
}

export interface AssignmentsAnswer {
  assignments: Array<AssignmentOut>;
  no_duels: NoDuels | null;
}

export interface AuditAnswer {
  acts: Array<AuditOut>;
  next: number | null;
}

export interface AuditOut {
  id: number;
  at: string;
  actor: string;
  act: string;
  subject: string;
}

export interface BoardAnswer {
  rows: Array<BoardRowOut>;
  anchor: number | null;
  num_judgements: number;
  num_annotators: number;
  num_prompts: number;
}

export interface BoardRowOut {
  version: number;
  num_judgements: number;
  score: number | null;
  low: number | null;
  high: number | null;
  win_rate: number | null;
  win_rate_low: number | null;
  win_rate_high: number | null;
}

export type Choice = "left" | "right" | "tie" | "both_bad" | "skip";

export interface ClearReportsAnswer {
  cleared: number;
}

export interface ClearReportsBody {
  annotator: string | null;
}

export interface ComparisonOut {
  other_version: number;
  sentence: string;
  num_images: number;
  num_prompts: number;
  mean_change: number;
  measures: Array<EffectOut>;
  prompts_changed_most: Array<PromptChangeOut>;
}

export interface ConsentAnswer {
  needed: boolean;
  text: string | null;
  version: string | null;
  sha256: string | null;
  agreed_at: string | null;
}

export interface ConsentBody {
  sha256: string;
}

export interface CurrentImportOut {
  current: ImportOut | null;
}

export interface DamageAnswer {
  out_of_pool: number;
  pairs: Array<DamagedPairOut>;
}

export interface DamagedPairOut {
  pair: number;
  prompt: string;
  lost: "images" | "tensors";
  since: string | null;
}

export interface DuelComparisonOut {
  version: number;
  other_version: number;
  verdict: Verdict;
  sentence: string;
  consequence: string;
  num_judgements: number;
  num_preferring: number;
  num_ties: number;
  num_annotators: number;
  num_prompts: number;
  is_capped: boolean;
  more_needed: number | null;
}

export interface EditAnswer {
  done: number;
  refused: Array<RefusedOut>;
}

export interface EditBody {
  prompts: Array<number>;
  act: "retire" | "restore" | "tag" | "untag" | "hold_out" | "train";
  tag?: string | null;
}

export interface EffectOut {
  measure: string;
  words: string;
  moved: boolean;
  p_value: number;
  num_agreeing: number;
  size: number;
  low: number;
  high: number;
  unit: "percent" | "points" | "deviations";
  deviations: number;
}

export interface EffectsAnswer {
  version: number;
  held_out_votes: number;
  held_out_agreeing: number;
  comparisons: Array<ComparisonOut>;
}

export interface EncodingOut {
  done: number;
  total: number;
}

export type Evidence = "held_out" | "cross_fitting" | "duels";

export type ExportFormat = "pick-a-pic" | "open-image-preferences" | "chosen-rejected" | "votes-jsonl" | "votes-csv";

export interface GoldAnswer {
  gold: Array<GoldOut>;
}

export interface GoldBody {
  answer: "a" | "b" | "tie";
}

export interface GoldOut {
  pair: number;
  answer: Outcome;
  prompt: string;
  images: Array<string>;
}

export interface HistoryAnswer {
  hours: Array<HourOut>;
}

export interface HourOut {
  hour: string;
  votes: number;
}

export interface ImportAnswer {
  dry_run: boolean;
  new: number;
  held_out: number;
  known: number;
  refused: Record<string, number>;
  rows: Array<RefusedOut>;
}

export interface ImportOut {
  name: string;
  use: ImportUse;
  phase: ImportPhase;
  format: string;
  total_bytes: number;
  num_bytes: number;
  total_rows: number;
  is_resumed: boolean;
  rows: number;
  pairs: number;
  votes: number;
  ties: number;
  unlabelled: number;
  duplicates: number;
  left_out: Record<string, number>;
  left_out_rows: Array<LeftOutRow>;
  problem: string;
}

export type ImportPhase = "receiving" | "reading" | "previewed" | "taking_in" | "done" | "failed";

export type ImportUse = "votes" | "pairs" | "both";

export interface Interval {
  value: number;
  low: number;
  high: number;
}

export interface JudgingAnswer {
  mode: "publish" | "hold" | "rollback";
  live_version: number;
  candidate: number | null;
  comparisons: Array<DuelComparisonOut>;
  verdicts: Array<RecordedVerdictOut>;
}

export interface LastRoundOut {
  id: number;
  status: RoundStatus;
  reason: string | null;
  adapter_version: number | null;
}

export interface LeftOutRow {
  row: string;
  reason: string;
}

export interface LiveAnswer {
  live_version: number;
}

export interface LoginAbout {
  available: boolean;
  needed: boolean;
  label: string | null;
}

export interface LoginAnswer {
  annotator: string;
  token: string;
  name: string;
  administrator: string | null;
}

export interface LoginBegun {
  url: string;
  way: string;
  ticket: string;
  seconds: number;
}

export interface MeAnswer {
  annotator: string;
  handle: string;
  signed_in: boolean;
  votes: OwnCounts;
  trained: Array<TrainedVersion>;
  agreements: Array<AgreementOut>;
}

export type NoDuels = "no_version" | "making" | "all_judged";

export type Outcome = "a" | "b" | "tie" | "both_bad" | "skip";

export interface OwnCounts {
  live: number;
  undone: number;
  withdrawn: number;
  by_question: Record<string, number>;
}

export interface OwnVote {
  vote: number;
  prompt: string;
  left: string;
  right: string;
  more: Array<string>;
  order: Array<number> | null;
  question: Question;
  choice: Choice;
  strength: Strength | null;
  comment: string | null;
  elapsed_ms: number;
  at: string;
  undone_at: string | null;
  withdrawn_at: string | null;
  versions: Array<number>;
}

export interface OwnVotesAnswer {
  votes: Array<OwnVote>;
  next: number | null;
}

export interface Problem {
  detail: string;
  code: string;
  errors?: Array<string> | null;
}

export interface ProgressAnswer {
  round: number;
  points: Array<ProgressPoint>;
}

export interface ProgressPoint {
  step: number;
  loss: number | null;
  margin: number | null;
  accuracy: number | null;
  held_out_loss: number | null;
  health: Record<string, number>;
}

export interface PromptChangeOut {
  prompt: string;
  change: number;
  seed: number;
  url: string;
  other_url: string;
}

export interface PromptOut {
  id: number;
  text: string;
  held_out: boolean;
  source: PromptSource;
  retired: boolean;
  tags: Array<string>;
  pairs: number;
  votes: number;
  created_at: string;
}

export type PromptSource = "list" | "import" | "annotator";

export interface PromptsAnswer {
  prompts: Array<PromptOut>;
  total: number;
  more: boolean;
  training: number;
  held_out: number;
  retired: number;
  tags: Record<string, number>;
}

export interface ProposalAnswer {
  text: string;
  created: boolean;
}

export interface ProposalBody {
  text: string;
}

export interface QualityReport {
  votes: number;
  skips: number;
  both_bad: number;
  pairs: number;
  overlapping_pairs: number;
  alpha: Interval | null;
  agreement: Share;
  repeats: Share;
  gold: Share;
  left: Share;
  left_p: number | null;
  ties: Share;
  fast: Share;
  median_ms: number | null;
  weights_in_use: boolean;
  max_annotator_share: number | null;
  newcomer_share: number | null;
  time_edges_ms: Array<number>;
  time_counts: Array<number>;
  annotators: Array<AnnotatorQuality>;
  notes: Array<string>;
  struck: Array<StruckAnnotatorEntry>;
}

export type Question = "overall" | "appeal" | "fit";

export interface RecordedVerdictOut {
  version: number;
  other_version: number;
  verdict: Verdict;
  evidence: Evidence;
  action: VerdictAction;
  sentence: string;
  created_at: string;
}

export interface RedeemBody {
  ticket: string;
  code: string;
}

export interface RefusedOut {
  row: number;
  text: string;
  reason: string;
  like: string;
}

export interface RenderAnswer {
  images: Array<RenderedOut>;
}

export interface RenderBody {
  prompt: string;
  seed: number;
  versions: Array<number>;
  strength?: number;
  steps?: number | null;
  guidance?: number | null;
}

export interface RenderedOut {
  version: number;
  url: string;
  withheld: boolean;
}

export interface RendererOut {
  phase: "starting" | "loading" | "ready" | "failed" | "stopped";
  message: string;
  pending: number;
  device: string | null;
}

export interface ReportAnswer {
  report: number;
  retired: boolean;
}

export interface ReportBody {
  assignment: string;
  reason: ReportReason;
  text?: string | null;
}

export interface ReportOut {
  id: number;
  pair: number;
  annotator: string;
  reason: ReportReason;
  text: string | null;
  at: string;
  cleared_at: string | null;
  cleared_by: string | null;
  confirmed_at: string | null;
  confirmed_by: string | null;
  retired: boolean;
  hidden: boolean;
  prompt: string;
  images: Array<string>;
}

export type ReportReason = "unsafe" | "broken" | "other";

export interface ReportsAnswer {
  reports: Array<ReportOut>;
  next: number | null;
}

export interface RestoredOut {
  votes_until_round: number;
}

export interface RoundOut {
  id: number;
  status: RoundStatus;
  trigger: Trigger;
  step: number;
  steps: number;
  loss: number | null;
  margin: number | null;
  accuracy: number | null;
  eta_seconds: number | null;
  votes: number;
  attempts: number;
  parent_version: number;
  adapter_version: number | null;
  reason: string | null;
  created_at: string;
  finished_at: string | null;
}

export type RoundStatus = "queued" | "running" | "published" | "refused" | "failed";

export interface RoundsAnswer {
  rounds: Array<RoundOut>;
}

export interface SessionAnswer {
  annotator: string;
  token: string;
}

export interface SessionBody {
  handle?: string;
  invite?: string | null;
}

export interface Share {
  successes: number;
  trials: number;
  value: number | null;
  low: number | null;
  high: number | null;
}

export interface SheetAnswer {
  rows: Array<SheetRow>;
}

export interface SheetImage {
  prompt: string;
  seed: number;
  url: string;
}

export interface SheetRow {
  version: number;
  images: Array<SheetImage>;
}

export interface StatusAnswer {
  votes: number;
  votes_until_round: number;
  min_votes: number;
  pool: number;
  live_version: number;
  round: RoundOut | null;
  last_round: LastRoundOut | null;
  last_error: string | null;
  encoding?: EncodingOut | null;
  storage?: string | null;
  renderer: RendererOut;
  trainer: TrainerOut;
  mode: "cpu" | "gpu" | "zerogpu";
}

export type Strength = "slightly" | "clearly";

export interface StruckAnnotatorEntry {
  name: string;
  struck_at: string;
  votes: number;
  reports: number;
  prompts: number;
}

export interface StruckOut {
  annotator: string;
  struck_at: string;
  votes: number;
  reports: number;
  prompts: number;
  votes_until_round: number;
}

export interface StudiesAnswer {
  studies: Array<StudyOut>;
}

export interface StudyAnswerBody {
  study: StudyOut;
  results: Array<StudyResultOut>;
}

export interface StudyBody {
  name: string;
  version_a: number;
  version_b: number;
  questions?: Array<Question>;
  raters?: number;
  pairs?: number;
}

export interface StudyOut {
  name: string;
  version_a: number;
  version_b: number;
  questions?: Array<Question>;
  raters?: number;
  pairs?: number;
  id: number;
  created_by: string;
  created_at: string;
  closed_at: string | null;
  made: number;
  answers: number;
}

export interface StudyResultOut {
  question: Question;
  pairs: number;
  prompts: number;
  answers: number;
  annotators: number;
  wins: number;
  losses: number;
  ties: number;
  win_rate: number | null;
  low: number | null;
  high: number | null;
  win_rate_ties_half: number | null;
  agreement: number | null;
  agreement_low: number | null;
  agreement_high: number | null;
}

export interface SuggestionOut {
  text: string;
  held_out: boolean;
}

export interface SuggestionsAnswer {
  suggestions: Array<SuggestionOut>;
}

export interface TrainedVersion {
  version: number;
  votes: number;
}

export interface TrainerOut {
  running: boolean;
  restarts: number;
  message: string;
  phase?: string;
}

export type Trigger = "votes" | "period" | "request" | "withdrawal";

export interface UndoAnswer {
  vote: number;
  undone?: true;
  votes_until_round: number;
}

export type Verdict = "better" | "worse" | "unsure";

export type VerdictAction = "promoted" | "rolled_back" | "rejected" | "none";

export interface VerdictOut {
  outcome: Verdict;
  sentence: string;
  caution: string;
}

export type VersionState = "live" | "candidate" | "superseded" | "rejected" | "rolled_back" | "past";

export interface VoteAnswer {
  vote: number;
  votes_until_round: number;
}

export interface VoteBody {
  assignment: string;
  choice?: Choice | null;
  order?: Array<number> | null;
  elapsed_ms?: number;
  strength?: Strength | null;
  comment?: string | null;
}

export interface WithdrawAnswer {
  withdrawn: number;
  votes_until_round: number;
  versions: Array<number>;
}

export interface Operations {
  "GET login": { response: LoginAbout };
  "POST login": { response: LoginBegun };
  "POST login/session": { body: RedeemBody; response: LoginAnswer };
  "POST session": { body: SessionBody; response: SessionAnswer };
  "GET assignments": { query?: { count?: number; kind?: AssignmentKind }; response: AssignmentsAnswer };
  "POST votes": { body: VoteBody; response: VoteAnswer };
  "GET votes": { query?: { before?: number | null; limit?: number }; response: OwnVotesAnswer };
  "DELETE votes/{vote_id}": { params: { vote_id: number }; response: UndoAnswer };
  "GET session/me": { response: MeAnswer };
  "POST votes/withdraw": { response: WithdrawAnswer };
  "POST votes/{vote_id}/withdraw": { params: { vote_id: number }; response: WithdrawAnswer };
  "GET consent": { response: ConsentAnswer };
  "POST consent": { body: ConsentBody; response: ConsentAnswer };
  "POST reports": { body: ReportBody; response: ReportAnswer };
  "GET reports": { query?: { before?: number | null; limit?: number; standing?: boolean }; response: ReportsAnswer };
  "GET status": { response: StatusAnswer };
  "GET history": { response: HistoryAnswer };
  "GET contact-sheet": { response: SheetAnswer };
  "POST render": { body: RenderBody; response: RenderAnswer };
  "GET adapters": { response: AdaptersAnswer };
  "POST adapters/{version}/live": { params: { version: number }; response: LiveAnswer };
  "GET rounds": { response: RoundsAnswer };
  "POST rounds": { response: RoundOut };
  "GET rounds/{round_id}/progress": { params: { round_id: number }; response: ProgressAnswer };
  "GET judging": { response: JudgingAnswer };
  "GET board": { response: BoardAnswer };
  "GET adapters/{version}/effects": { params: { version: number }; response: EffectsAnswer };
  "POST reports/{report_id}/clear": { params: { report_id: number }; response: ReportOut };
  "POST reports/{report_id}/confirm": { params: { report_id: number }; response: ReportOut };
  "POST reports/clear": { body: ClearReportsBody; response: ClearReportsAnswer };
  "GET audit": { query?: { before?: number | null; limit?: number }; response: AuditAnswer };
  "POST annotators/{annotator}/strike": { params: { annotator: string }; response: StruckOut };
  "POST annotators/{annotator}/restore": { params: { annotator: string }; response: RestoredOut };
  "GET gold": { response: GoldAnswer };
  "PUT gold/{pair_id}": { params: { pair_id: number }; body: GoldBody; response: GoldOut };
  "GET prompts/suggestions": { query?: { like?: string; count?: number }; response: SuggestionsAnswer };
  "POST prompts": { body: ProposalBody; response: ProposalAnswer };
  "GET prompts": { query?: { search?: string; tag?: string | null; held_out?: boolean | null; retired?: boolean | null; before?: number | null; limit?: number }; response: PromptsAnswer };
  "POST prompts/edit": { body: EditBody; response: EditAnswer };
  "POST prompts/import": { query?: { format?: "txt" | "csv" | "tsv" | "jsonl" | "json"; held_out_share?: number; tag?: Array<string> | null; column?: string | null; dry_run?: boolean }; content: BodyInit; response: ImportAnswer };
  "GET quality": { response: QualityReport };
  "GET studies": { response: StudiesAnswer };
  "POST studies": { body: StudyBody; response: StudyOut };
  "GET studies/{study_id}": { params: { study_id: number }; response: StudyAnswerBody };
  "POST studies/{study_id}/close": { params: { study_id: number }; response: StudyOut };
  "GET imports": { response: CurrentImportOut };
  "DELETE imports": { response: CurrentImportOut };
  "POST imports": { query: { name: string; as?: ImportUse }; content: BodyInit; response: CurrentImportOut };
  "POST imports/hub": { query: { name: string; as?: ImportUse }; response: CurrentImportOut };
  "POST imports/take-in": { response: CurrentImportOut };
  "GET damage": { response: DamageAnswer };
}

export interface Downloads {
  "GET images/{token}": { params: { token: string } };
  "GET votes/export": { query?: { format?: "jsonl" | "csv" | "json" } };
  "GET adapters/{version}/download": { params: { version: number } };
  "GET quality/annotators.csv": {};
  "GET studies/{study_id}/table": { params: { study_id: number } };
  "GET exports/{format}": { params: { format: ExportFormat }; query?: { since?: string | null; until?: string | null; question?: Question | null; version?: Array<number> | null; min_votes?: number; min_agreement?: number; reported?: boolean } };
}
