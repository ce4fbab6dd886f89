/** The four categories of events. Consent is given, and withdrawn, by category. */
export type Category =
  | "learning_progress"
  | "user_interaction"
  | "system_performance"
  | "business_intelligence";

/** What may be collected, by category. */
export type Consent = Record<Category, boolean>;

/** Who is signed in on this device. */
export interface User {
  /** The `sub` of the user's token; the empty string for an anonymous key. */
  id: string;
  /**
   * At least 16 random bytes, as text, that your server always gives this user and nobody else
   * (for instance an HMAC of the id). With it, unsent events outlive a sign-out, sealed, and
   * leave when the same user is back. Without it they end with the session.
   */
  secret?: string;
}

/** Where an event happened. Merged over the client's own `context`. */
export interface Context {
  page_url?: string;
  referrer?: string | null;
  assignment_id?: string | null;
  sequence_id?: string | null;
  class_id?: string | null;
  teacher_id?: string | null;
  experiments?: Record<string, string>;
  [key: string]: unknown;
}

/** Every limit has a unit in its name; each can be set. */
export interface Limits {
  /** Events kept on this device for one user (20,000). The oldest non-critical go first. */
  queueEvents: number;
  /** Events in one publish (100; each holds at most 10,000 bytes). */
  batchEvents: number;
  /** Milliseconds until events that are not critical are sent (30,000). */
  batchMs: number;
  /** Milliseconds to wait for a connection or an answer (10,000). */
  answerMs: number;
  /** Milliseconds, doubled at each of the three retries, of which chance takes a part (1,000). */
  retryMs: number;
  /** Milliseconds between tries once the three are used up (60,000). */
  offlineMs: number;
}

export interface Options {
  /** Address of the broker, as `https://broker.school`, without a slash at its end. */
  url: string;
  /** Address of its WebSocket, where that is not `/v1/stream` at `url`. */
  stream?: string;
  /** Gives a user token or an anonymous key. Called when one is needed; may fail while offline. */
  getToken: () => string | Promise<string>;
  /** Who is signed in. Left out, it is the token's `sub`; give it so that offline starts work. */
  user?: User;
  /** What the page knows of consent. Learning progress and system performance default to true. */
  consent?: Partial<Consent>;
  /** Put into every event's context. */
  context?: Context;
  /** Put into every event's `device_info`, beside `platform`. */
  device?: Record<string, string>;
  /** Category of your own event types (`org.…`); an unknown type counts as user interaction. */
  types?: Record<string, Category>;
  limits?: Partial<Limits>;
}

/** The broker's last word on an event, or ours where it never left. */
export type Outcome = "stored" | "duplicate" | "dropped" | "rejected" | "quarantined";

export interface Receipt {
  event_id: string;
  /** Unknown ("") where the event could not be opened any more. */
  event_type: string;
  outcome: Outcome | "queued";
  /**
   * Why an event was lost. The broker's reasons, and our own: `consent`, `sampled`, `full`,
   * `too_large`, `malformed`, `signed_out`, `unreadable`, `no_user`, `closed`.
   */
  reason?: string;
  detail?: string;
}

export interface State {
  /** `offline`: the quick retries are used up, events wait on this device. */
  state: "idle" | "online" | "retrying" | "offline" | "closed";
  /** Whether events outlive this page: false in private windows and without https. */
  durable: boolean;
}

export interface Signals {
  /** An event is settled: it needs no more sending. */
  ack: Receipt;
  /** An event is lost, and why: not sent, or refused by the broker. */
  drop: Receipt;
  state: State;
  /** What may be collected changed. */
  consent: Consent;
}

/** What `<mlc-consent>` says; give your own for other languages. */
export interface ConsentWords {
  title: string;
  school: string;
  user_interaction: string;
  business_intelligence: string;
  save: string;
  refuse: string;
  saved: string;
}

/** What a game holds: takes events, never throws, never waits. */
export interface Client {
  /** What may be collected now. */
  readonly consent: Consent;
  /**
   * Report an event; returns its id at once. Learning progress and errors leave at once, the rest
   * in batches. Never throws: what cannot be taken comes back by `on("drop")`.
   */
  track<T extends EventName>(type: T, properties: Events[T], context?: Context): string;
  track(type: `org.${string}`, properties: Record<string, unknown>, context?: Context): string;
  /** Send what waits; resolves after the attempt, whatever came of it. */
  flush(): Promise<void>;
  /** Give or withdraw consent by category: it holds at once, in every tab; the broker is told. */
  setConsent(consent: Partial<Consent>): Promise<void>;
  /** Collect nothing more, and forget all that has not left, until `setConsent` says otherwise. */
  optOut(): Promise<void>;
  /** Another user is at this device, with their own consent. The last one is signed out first. */
  setUser(user: User, consent?: Partial<Consent>): Promise<void>;
  /**
   * The user leaves: what waits is sent for up to 3 s, then their key goes.
   * Resolves to the events that are still unsent: with a `secret` they wait, sealed, for the
   * user's return; without one they are dropped as `signed_out`.
   */
  clearUser(): Promise<number>;
  /** Listen; returns the function that stops it. */
  on<K extends keyof Signals>(name: K, listener: (value: Signals[K]) => void): () => void;
  /** What was sent about this user from this page, what became of it, and what waits. */
  history(): Receipt[];
  /** The game is over. What waits stays on this device for the next page. */
  close(): Promise<void>;
}

// Generated by scripts/generate.mjs from the broker's schemas: change those.

export interface UserInteraction {
  assignment_id?: string | null;
  sequence_id?: string | null;
}

export interface LearningProgress {
  game_id?: string | null;
  stage_id?: string | null;
  stage_type?: "challenge" | "learn" | "play" | "quiz" | "review" | null;
  score?: number | null;
  max_score?: number | null;
  passed?: boolean | null;
  duration_ms?: number | null;
  attempts?: number | null;
  mistake_count?: number | null;
  input_mode?: "keyboard" | "mic" | "microphone" | "midi" | "mouse" | "touch" | null;
  device_profile?: "any" | "mic_optional" | "mic_required" | "midi_optional" | "midi_required" | null;
  concept_tags?: readonly string[] | null;
  difficulty_level?: number | null;
  mastery_status?: "in_progress" | "mastered" | "not_started" | "reviewed" | null;
  time_to_mastery_ms?: number | null;
  retention_score?: number | null;
  adaptive_difficulty?: number | null;
  learning_style?: "aural" | "kinesthetic" | "mixed" | "visual" | null;
  run_id?: string | null;
  game_version?: number | string | null;
  stage_version?: number | string | null;
  play_context?: "assigned" | "free_play" | null;
  step_id?: string | null;
  sequence_version?: number | null;
  student_id?: string | null;
  target_score?: number | null;
  pass_threshold?: number | null;
  assignment_id?: string | null;
  sequence_id?: string | null;
}

export interface SystemPerformance {
  assignment_id?: string | null;
  sequence_id?: string | null;
}

export interface BusinessIntelligence {
  assignment_id?: string | null;
  sequence_id?: string | null;
}

/** The properties of each event type. (The broker keeps other keys too; types here find typos.) */
export interface Events {
  /** Somebody signed in. */
  user_login: UserInteraction & {
    login_method?: "oauth" | "password" | "sso" | null;
    mfa_used?: boolean | null;
    session_duration_estimate?: number | null;
    role?: string | null;
    idp_name?: string | null;
    protocol?: string | null;
  };
  /** Somebody signed out, or was. */
  user_logout: UserInteraction & {
    session_duration_ms?: number | null;
    logout_reason?: "forced" | "timeout" | "user_initiated" | null;
  };
  /** A session ended for want of activity. */
  session_timeout: UserInteraction & {
    session_duration_ms?: number | null;
    idle_ms?: number | null;
    role?: string | null;
  };
  /** A password was reset, or a reset was asked for. */
  password_reset: UserInteraction & {
    reset_method?: string | null;
    initiated_by?: string | null;
    success?: boolean | null;
  };
  /** A page was shown. */
  page_view: UserInteraction & {
    page_url?: string | null;
    page_title?: string | null;
    referrer?: string | null;
    load_time_ms?: number | null;
    search_query?: string | null;
  };
  /** A page was left. */
  page_exit: UserInteraction & {
    page_url?: string | null;
    time_on_page_ms?: number | null;
    scroll_depth_percent?: number | null;
    exit_url?: string | null;
  };
  /** A menu entry was chosen. */
  menu_click: UserInteraction & {
    menu_id?: string | null;
    menu_item?: string | null;
    target_url?: string | null;
    position?: number | null;
  };
  /** A breadcrumb was followed. */
  breadcrumb_click: UserInteraction & {
    breadcrumb?: string | null;
    level?: number | null;
    target_url?: string | null;
  };
  /** The pointer moved. */
  mouse_move: UserInteraction & {
    x?: number | null;
    y?: number | null;
    page_url?: string | null;
    element_id?: string | null;
    distance_px?: number | null;
  };
  /** A game was opened. */
  game_launch: UserInteraction & {
    game_id?: string | null;
    stage_id?: string | null;
    stage_type?: "challenge" | "learn" | "play" | "quiz" | "review" | null;
    launch_source?: string | null;
    play_context?: "assigned" | "free_play" | null;
    step_id?: string | null;
    game_version?: number | string | null;
    bundle_version?: string | null;
    load_time_ms?: number | null;
  };
  /** A learning sequence was looked at. */
  sequence_view: UserInteraction & {
    sequence_version?: number | null;
    group_id?: string | null;
    position?: number | null;
  };
  /** An assignment was opened. */
  assignment_open: UserInteraction & {
    open_source?: string | null;
    step_count?: number | null;
    steps_completed?: number | null;
  };
  /** A file was downloaded. */
  resource_download: UserInteraction & {
    resource_id?: string | null;
    resource_type?: string | null;
    resource_name?: string | null;
    file_size_bytes?: number | null;
    format?: string | null;
  };
  /** A message was sent. Its body is never an event's business. */
  message_sent: UserInteraction & {
    message_id?: string | null;
    message_type?: string | null;
    recipient_id?: string | null;
    recipient_count?: number | null;
    recipient_role?: string | null;
    subject?: string | null;
    length_chars?: number | null;
    has_attachment?: boolean | null;
  };
  /** A message was read. */
  message_read: UserInteraction & {
    message_id?: string | null;
    message_type?: string | null;
    sender_id?: string | null;
    time_to_read_ms?: number | null;
  };
  /** A notification was shown. */
  notification_received: UserInteraction & {
    notification_id?: string | null;
    notification_type?: string | null;
    channel?: string | null;
    title?: string | null;
    clicked?: boolean | null;
  };
  /** A stage was begun. */
  game_stage_start: LearningProgress & {
    telemetry_config?: { emit_per_note?: boolean | null; emit_per_prompt?: boolean | null; sampling_rate?: number | null } | null;
    student_context?: { prior_attempts_this_stage?: number | null; best_score_this_stage?: number | null; time_since_last_attempt_hours?: number | null } | null;
  };
  /** A stage was played to its end. */
  game_stage_complete: LearningProgress & {
    mastery_achieved?: boolean | null;
    retry_count?: number | null;
    offline_queued?: boolean | null;
    attempt_number?: number | null;
    step_completed?: boolean | null;
    assignment_progress_before?: number | null;
    assignment_progress_after?: number | null;
    performance_summary?: { fps_average?: number | null; fps_min?: number | null; memory_peak_mb?: number | null; asset_load_time_ms?: number | null; total_interactions?: number | null; hints_used?: number | null; pauses?: number | null; errors_encountered?: number | null } | null;
  };
  /** A stage was left before its end. */
  game_stage_quit: LearningProgress & {
    elapsed_ms?: number | null;
    progress_percentage?: number | null;
    score_at_quit?: number | null;
    reason?: "browser_close" | "completion" | "error" | "timeout" | "user_exit" | null;
    completed_prompts?: number | null;
    total_prompts?: number | null;
    performance_at_quit?: { fps_average?: number | null; fps_min?: number | null; memory_peak_mb?: number | null; asset_load_time_ms?: number | null; total_interactions?: number | null; hints_used?: number | null; pauses?: number | null; errors_encountered?: number | null } | null;
  };
  /** A target score was reached. */
  target_met: LearningProgress & {
    actual_score?: number | null;
    time_to_target_ms?: number | null;
    attempts_to_target?: number | null;
  };
  /** An assignment was begun. */
  assignment_started: LearningProgress & {
    status?: string | null;
    step_count?: number | null;
    steps_completed?: number | null;
    due_date?: string | null;
    assigned_at?: string | null;
    precompleted_count?: number | null;
  };
  /** An assignment was finished. */
  assignment_completed: LearningProgress & {
    status?: string | null;
    step_count?: number | null;
    steps_completed?: number | null;
    due_date?: string | null;
    assigned_at?: string | null;
    completion_percentage?: number | null;
    average_score?: number | null;
    best_score?: number | null;
    time_to_completion_ms?: number | null;
    time_to_completion_hours?: number | null;
    mastery_score?: number | null;
    on_time?: boolean | null;
  };
  /** An assignment's day has passed. */
  assignment_overdue: LearningProgress & {
    status?: string | null;
    step_count?: number | null;
    steps_completed?: number | null;
    due_date?: string | null;
    assigned_at?: string | null;
    days_overdue?: number | null;
    completion_percentage?: number | null;
  };
  /** A concept was mastered. */
  concept_mastered: LearningProgress & {
    mastery_level?: string | null;
    total_attempts?: number | null;
    learning_sequence_position?: number | null;
    concept_id?: string | null;
  };
  /** A review was put into the calendar. Six pages of the platform shape it six ways. */
  review_scheduled: LearningProgress & {
    review_date?: string | null;
    due_date?: string | null;
    scheduled_for?: string | null;
    offset_days?: number | null;
    retention_confidence?: number | null;
    schedule_id?: string | null;
    concept_id?: string | null;
    review_sequence?: number | null;
    trigger?: string | null;
  };
  /** What was learnt was tested again. */
  retention_check: LearningProgress & {
    concept_id?: string | null;
    schedule_id?: string | null;
    review_sequence?: number | null;
    score_achieved?: number | null;
    days_since_mastery?: number | null;
    days_since_quiz?: number | null;
    days_overdue?: number | null;
    retained?: boolean | null;
    decay_rate?: number | null;
    consistency_score?: number | null;
    compliance_rate?: number | null;
  };
  /** Somebody entered a challenge. */
  challenge_joined: LearningProgress & {
    challenge_id?: string | null;
    challenge_game_id?: string | null;
    challenge_type?: string | null;
    participant_count?: number | null;
  };
  /** A challenge was played to its end. Challenges need no maximum: their scores are open. */
  challenge_completed: LearningProgress & {
    challenge_id?: string | null;
    challenge_game_id?: string | null;
    rank?: number | null;
    completion_time_ms?: number | null;
    attempt_number?: number | null;
    is_personal_best?: boolean | null;
    is_leaderboard_qualified?: boolean | null;
  };
  /** A place on a leaderboard changed. */
  leaderboard_update: {
    leaderboard_id?: string | null;
    challenge_id?: string | null;
    game_id?: string | null;
    rank?: number | null;
    previous_rank?: number | null;
    score?: number | null;
    display_name?: string | null;
    time_period?: "all_time" | "day" | "month" | "week" | null;
    scope_type?: string | null;
    participant_count?: number | null;
    badges?: readonly string[] | null;
    assignment_id?: string | null;
    sequence_id?: string | null;
  };
  /** How long a page took. */
  page_load_time: SystemPerformance & {
    page_url?: string | null;
    load_time_ms?: number | null;
    dom_ready_ms?: number | null;
    first_paint_ms?: number | null;
    largest_contentful_paint_ms?: number | null;
    cumulative_layout_shift?: number | null;
    interaction_to_next_paint_ms?: number | null;
    time_to_first_byte_ms?: number | null;
  };
  /** How long an API call took. */
  api_response_time: SystemPerformance & {
    endpoint?: string | null;
    method?: string | null;
    status_code?: number | null;
    response_time_ms?: number | null;
    payload_size_bytes?: number | null;
    request_id?: string | null;
  };
  /** How long an asset took. */
  asset_load_time: SystemPerformance & {
    asset_type?: string | null;
    asset_url?: string | null;
    asset_size_bytes?: number | null;
    load_time_ms?: number | null;
    cache_hit?: boolean | null;
    cdn_region?: string | null;
    http_status?: number | null;
    game_id?: string | null;
  };
  /** A script failed in a browser. */
  javascript_error: SystemPerformance & {
    error_type?: string | null;
    error_code?: string | null;
    error_message?: string | null;
    message?: string | null;
    stack_trace?: string | null;
    stack?: string | null;
    severity?: string | null;
    recoverable?: boolean | null;
    page_url?: string | null;
    file_name?: string | null;
    line_number?: number | null;
    column_number?: number | null;
  };
  /** An API call failed. */
  api_error: SystemPerformance & {
    error_type?: string | null;
    error_code?: string | null;
    error_message?: string | null;
    message?: string | null;
    stack_trace?: string | null;
    stack?: string | null;
    severity?: string | null;
    recoverable?: boolean | null;
    page_url?: string | null;
    endpoint?: string | null;
    method?: string | null;
    status_code?: number | null;
    response_time_ms?: number | null;
    retry_count?: number | null;
    request_id?: string | null;
  };
  /** A game failed. */
  game_error: SystemPerformance & {
    error_type?: string | null;
    error_code?: string | null;
    error_message?: string | null;
    message?: string | null;
    stack_trace?: string | null;
    stack?: string | null;
    severity?: string | null;
    recoverable?: boolean | null;
    page_url?: string | null;
    game_id?: string | null;
    stage_id?: string | null;
    stage_type?: "challenge" | "learn" | "play" | "quiz" | "review" | null;
    run_id?: string | null;
    game_version?: number | string | null;
    error_category?: "asset" | "device" | "network" | "runtime" | "scoring" | null;
    recovery_action?: string | null;
    asset_url?: string | null;
    file_name?: string | null;
    line_number?: number | null;
  };
  /** The network failed. */
  network_error: SystemPerformance & {
    error_type?: string | null;
    error_code?: string | null;
    error_message?: string | null;
    message?: string | null;
    stack_trace?: string | null;
    stack?: string | null;
    severity?: string | null;
    recoverable?: boolean | null;
    page_url?: string | null;
    endpoint?: string | null;
    http_status?: number | null;
    retry_count?: number | null;
    queued_for_retry?: boolean | null;
    connection_type?: string | null;
    offline_ms?: number | null;
  };
  /** A service was asked how it is. */
  service_health_check: SystemPerformance & {
    service?: string | null;
    service_name?: string | null;
    status?: string | null;
    response_time_ms?: number | null;
    cpu_usage_percent?: number | null;
    memory_used_mb?: number | null;
    uptime_percent?: number | null;
    detail?: string | null;
  };
  /** The state of a database and its connections. */
  database_connection: SystemPerformance & {
    database?: string | null;
    status?: string | null;
    connection_time_ms?: number | null;
    query_time_ms?: number | null;
    pool_size?: number | null;
    active_connections?: number | null;
    detail?: string | null;
  };
  /** The state of the content network. */
  cdn_status: SystemPerformance & {
    provider?: string | null;
    region?: string | null;
    status?: string | null;
    response_time_ms?: number | null;
    cache_hit_rate?: number | null;
    error_rate?: number | null;
  };
  /** Whatever a developer wants to see, under `data`; collected outside production only. */
  debug: SystemPerformance & {
    level?: string | null;
    message?: string | null;
    component?: string | null;
  };
  /** A subscription began. */
  subscription_created: BusinessIntelligence & {
    subscription_id?: string | null;
    plan?: string | null;
    billing_cycle?: string | null;
    seats?: number | null;
    status?: string | null;
    start_date?: string | null;
    end_date?: string | null;
    renewal_date?: string | null;
    trial?: boolean | null;
    amount_cents?: number | null;
    currency?: string | null;
    promo_code?: string | null;
  };
  /** A subscription changed. */
  subscription_updated: BusinessIntelligence & {
    subscription_id?: string | null;
    plan?: string | null;
    billing_cycle?: string | null;
    seats?: number | null;
    status?: string | null;
    start_date?: string | null;
    end_date?: string | null;
    renewal_date?: string | null;
    previous_plan?: string | null;
    previous_seats?: number | null;
    change_type?: string | null;
    reason?: string | null;
  };
  /** A payment was made, or failed. No card or account number belongs here. */
  payment_processed: BusinessIntelligence & {
    payment_id?: string | null;
    subscription_id?: string | null;
    invoice_id?: string | null;
    amount?: number | null;
    amount_cents?: number | null;
    currency?: string | null;
    payment_method?: string | null;
    status?: string | null;
    success?: boolean | null;
    failure_reason?: string | null;
  };
  /** How many seats are in use. */
  seat_utilization: BusinessIntelligence & {
    subscription_id?: string | null;
    total_seats?: number | null;
    used_seats?: number | null;
    active_seats?: number | null;
    utilization_percent?: number | null;
    utilization_rate?: number | null;
    period?: string | null;
  };
  /** How far a feature is used. */
  feature_adoption: BusinessIntelligence & {
    feature?: string | null;
    feature_name?: string | null;
    action?: string | null;
    first_use?: boolean | null;
    usage_count?: number | null;
    adoption_percent?: number | null;
    variant?: string | null;
  };
  /** How many people stay. */
  retention_metrics: BusinessIntelligence & {
    cohort?: string | null;
    period?: string | null;
    retention_rate?: number | null;
    churn_rate?: number | null;
    active_users?: number | null;
    total_users?: number | null;
    day?: number | null;
  };
  /** Somebody asked for help. */
  support_ticket_created: BusinessIntelligence & {
    ticket_id?: string | null;
    ticket_category?: string | null;
    category?: string | null;
    priority?: string | null;
    channel?: string | null;
    subject?: string | null;
    description?: string | null;
    tags?: readonly string[] | null;
    source_page?: string | null;
  };
  /** Somebody was helped. */
  support_ticket_resolved: BusinessIntelligence & {
    ticket_id?: string | null;
    ticket_category?: string | null;
    category?: string | null;
    priority?: string | null;
    channel?: string | null;
    subject?: string | null;
    description?: string | null;
    tags?: readonly string[] | null;
    resolution?: string | null;
    resolution_type?: string | null;
    resolution_time_ms?: number | null;
    satisfaction?: 1 | 2 | 3 | 4 | 5 | null;
    reopened?: boolean | null;
  };
}

export type EventName = keyof Events;

/**
 * Start reporting. Returns at once; whatever goes wrong later comes by `on("drop")` and
 * `on("state")`, never as an exception.
 */
export declare function createClient(options: Options): Client;
