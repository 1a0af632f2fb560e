"""Names that vulture may not call unused: each is used where it cannot look. `make lint` gives it this file.

A line without its user named above it does not belong here: remove the code instead.
"""

# ruff: noqa: B018, F821
# mypy: ignore-errors

# http.server and socketserver call and read these.
_.do_GET, _.do_HEAD, _.do_POST, _.do_PUT, _.do_PATCH, _.do_DELETE, _.do_OPTIONS
_.log_message, _.args, _.daemon_threads, _.close_connection

# asyncio calls this.
_.data_received

# Alembic reads these in every revision.
_.revision, _.down_revision, _.downgrade

# SQLAlchemy reads and calls these.
_.impl, _.cache_ok, _.process_bind_param, _.process_result_value, _.type_annotation_map
_.hold  # called for every connection
_.changed_at  # a column, for whoever looks at the database

# pickle calls these.
_.find_class, _.reducer_override

# torch, zipfile and tempfile read what is assigned.
_.deterministic, _.benchmark, _.compress_type, _.tempdir
_.closure  # a parameter of torch's Optimizer.step

# The with statement and pydantic-settings pass these.
_.trace, _.settings_customise_sources, _.dotenv_settings, _.file_secret_settings

# Values that callers send by name: members of the enums of a command and of the API.
_.POSTERIOR, _.UNSAFE, _.BROKEN, _.OTHER
_.PICK_A_PIC, _.OPEN_IMAGE_PREFERENCES, _.CHOSEN_REJECTED, _.VOTES_JSONL, _.VOTES_CSV

# Fields of answers: the page and other clients read them.
_.hours, _.trained, _.needed, _.agreed_at, _.left_out_rows, _.cleared
_.learned, _.other_url, _.held_out_votes, _.held_out_agreeing
_.skips, _.both_bad, _.time_edges_ms, _.time_counts, _.out_of_pool
_.state_words

# Numbers of a test that are recorded with its verdict.
_.e_value_better, _.e_value_worse

# Settings that training reads by a name put together from the measure's.
_.min_saturation, _.max_saturation, _.min_contrast, _.max_contrast
_.min_sharpness, _.max_sharpness, _.min_diversity

# The API's way to vote passes a whole SubmittedVote; this is the plain one beside `record`, which sets stores up.
_.record_ranking
_.is_wrong  # of a simulated vote: what its random mistakes are checked by

# What scripts take from the package: the lazy names of `dmpo_app`, and the fields of a training's result.
_.__getattr__, _.__dir__, _.base_loss, _.adapter_path
_.RowsSource, _.Studio

# The page and programs read these of the API's answers.
_.no_duels, _.agreement_low, _.agreement_high

# Click and pydantic read these.
_.obj, _.context_class, _.model_config

# Gradio, uvicorn and `spaces` read what is assigned.
_.is_colab, _.is_running, _.local_url, _.space_id, _.should_exit

# pytest reads these.
_.pytestmark
# tarfile reads what is assigned.
_.uid, _.gid, _.gname
