/* src/train/keys.c: the keys seed, train.* and run.*, and the conditions between them. */
#include <limits.h>
#include <string.h>

#include "train_impl.h"

#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))
#define BIG      1e300

static const sq_key train_keys[] = {
    {"seed", SQ_KEY_INT, "1919", 0, INT_MAX, NULL, "seed of every random number of the cell"},
    {"train.recipe", SQ_KEY_STRING, "\"corrected\"", 0, 0, "corrected|published",
     "corrected: what the study means to do; published: what its code does"},
    {"train.num_epochs", SQ_KEY_INT, "null", 1, 1e6, NULL,
     "passes over the training set; this or total_steps"},
    {"train.total_steps", SQ_KEY_INT, "null", 1, INT_MAX, NULL, "training steps; this or num_epochs"},
    {"train.batch_size", SQ_KEY_INT, NULL, 1, 65536, NULL, "sequences of a training step"},
    {"train.eval_batch_size", SQ_KEY_INT, "null", 1, 65536, NULL,
     "sequences of an evaluation batch (default: batch_size)"},
    {"train.lr", SQ_KEY_REAL, NULL, 0, BIG, NULL, "base learning rate"},
    {"train.wd", SQ_KEY_REAL, "0", 0, BIG, NULL, "decoupled weight decay"},
    {"train.betas", SQ_KEY_REALS, "[0.9, 0.999]", 0, 0.9999999, NULL, "the two decay rates of AdamW"},
    {"train.eps", SQ_KEY_REAL, "1e-8", 1e-30, 1, NULL, "AdamW's epsilon"},
    {"train.grad_clip", SQ_KEY_REAL, "1.0", 0, BIG, NULL, "largest global gradient norm; 0: no clipping"},
    {"train.warmup", SQ_KEY_INT, "null", 0, INT_MAX, NULL,
     "warm-up: steps with total_steps, else epochs (published: read with num_epochs only)"},
    {"train.warmup_steps", SQ_KEY_INT, "null", 0, INT_MAX, NULL, "warm-up in steps; before warmup"},
    {"train.eval_every", SQ_KEY_INT, "null", 1, INT_MAX, NULL,
     "steps between evaluations (default: an epoch, or total_steps/20)"},
    {"train.stop_criterion", SQ_KEY_REAL, "null", -BIG, BIG, NULL,
     "stop at the first evaluation whose metric is at least this (perplexity: at most)"},
    {"train.cosine_anneal", SQ_KEY_BOOL, "true", 0, 0, NULL,
     "corrected: false keeps the rate constant after the warm-up"},
    {"train.lr_min", SQ_KEY_REAL, "5e-6", 0, BIG, NULL,
     "rate at the end of the cosine, floor of the plateau rule"},
    {"train.reduce_factor", SQ_KEY_REAL, "null", 1e-6, 1, NULL, "plateau rule: factor on the base rate"},
    {"train.lr_patience", SQ_KEY_INT, "null", 0, INT_MAX, NULL,
     "plateau rule: evaluations without improvement that are allowed"},
    {"train.ssm_lr", SQ_KEY_REAL, "null", 0, BIG, NULL,
     "rate of the state-space parameters; no effect on attention"},
    {"train.param_group", SQ_KEY_STRING, "null", 0, 0, NULL, "published key; null only"},
};

static const sq_key run_keys[] = {
    {"run.checkpoint_minutes", SQ_KEY_REAL, "10", 0, 1e6, NULL,
     "minutes between checkpoints of a running cell"},
    {"run.save_weights", SQ_KEY_BOOL, "false", 0, 0, NULL, "keep the trained parameters in the results file"},
    {"run.threads", SQ_KEY_INT, "1", 1, 1024, NULL,
     "OpenMP threads of a rank, which train its cell together"},
    {"run.team", SQ_KEY_STRING, "\"auto\"", 0, 0, "auto|1|2|4|8|16",
     "ranks that train a cell together; auto: more than one where there are more ranks than cells"},
    {"run.overlap", SQ_KEY_BOOL, "true", 0, 0, NULL,
     "ranks of a team add up gradients while the backward pass goes on; false: when it has ended"},
};

static sq_status train_check(const sq_config *c)
{
  const int epochs = sq_config_has(c, "train.num_epochs"), steps = sq_config_has(c, "train.total_steps");
  if (!epochs && !steps) {
    return sq_fail(SQ_ERR_USAGE, "train.total_steps: required key is missing; give it or train.num_epochs");
  }
  if (epochs && steps)
    return sq_fail(SQ_ERR_USAGE,
                   "train.total_steps: given with train.num_epochs; expected one of them, and null for the "
                   "other: --set train.num_epochs=null counts in steps, --set train.total_steps=null in "
                   "epochs");
  if (sq_config_count(c, "train.betas") != 2) {
    return sq_fail(SQ_ERR_USAGE, "train.betas: %d numbers; expected two, as in [0.9, 0.999]",
                   sq_config_count(c, "train.betas"));
  }
  if (sq_config_real(c, "train.lr") <= 0)
    return sq_fail(SQ_ERR_USAGE, "train.lr: 0; expected a number above 0");
  if (sq_config_has(c, "train.reduce_factor") != sq_config_has(c, "train.lr_patience")) {
    return sq_fail(SQ_ERR_USAGE,
                   "%s: given alone; the plateau rule needs train.reduce_factor and train.lr_patience",
                   sq_config_has(c, "train.reduce_factor") ? "train.reduce_factor" : "train.lr_patience");
  }
  if (sq_config_has(c, "train.param_group")) {
    return sq_fail(SQ_ERR_USAGE,
                   "train.param_group: \"%s\"; expected null: all parameters share one optimiser",
                   sq_config_string(c, "train.param_group"));
  }
  return SQ_OK;
}

int sq_train_keysets(const sq_keyset **set, int cap)
{
  static const sq_keyset sets[] = {
      {.owner = "", .key = train_keys, .nkey = COUNT(train_keys), .check = train_check},
      {.owner = "", .key = run_keys, .nkey = COUNT(run_keys), .check = NULL},
  };
  for (int i = 0; i < COUNT(sets) && i < cap; ++i) set[i] = &sets[i];
  return COUNT(sets);
}
