/* tests/test_config_grid.c: cells, grids, labels, overrides, notes and canonical JSON. */
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "config_schema.h"

#define AT(e, i) sq_experiment_cell(e, i)

static void a_cell_has_its_values_and_the_defaults(void **state)
{
  (void)state;
  write_json("one.json", "{'seed':3.0," MQAR ",'train':{'lr':1e-3,'batch_size':64,'betas':[0.5,1e-2]},"
                         "'analysis':{'protocols':['published','dsf']}," NORM "}");
  sq_experiment *e = load("one.json");
  const sq_config *c = AT(e, 0);
  assert_int_equal(sq_experiment_ncell(e), 1);
  assert_string_equal(sq_experiment_name(e), "one");
  assert_int_equal(sq_config_int(c, "seed"), 3);
  assert_true(sq_config_real(c, "train.lr") == 1e-3);
  assert_int_equal(sq_config_count(c, "train.betas"), 2);
  assert_true(sq_config_real_at(c, "train.betas", 1) == 1e-2);
  assert_int_equal(sq_config_count(c, "analysis.protocols"), 2);
  assert_string_equal(sq_config_string_at(c, "analysis.protocols", 0), "published");
  assert_int_equal(sq_config_bool(c, "model.use_gate"), 0);
  assert_string_equal(sq_config_string(c, "run.team"), "auto"); /* a default that is a bare word */
  assert_string_equal(sq_config_string(c, "model.norm_fn"), "exp");
  assert_int_equal(sq_config_has(c, "train.total_steps"), 0); /* no value */
  assert_int_equal(sq_config_has(c, "model.dt_min"), 0);      /* of another model */
  assert_int_equal(sq_config_has(c, "no.such"), 0);
  assert_int_equal(sq_config_has(c, "train.wd"), 1);
  assert_string_equal(sq_config_label(c), "one");
  assert_string_equal(sq_config_model_label(c), "one");
  assert_string_equal(sq_config_task_label(c), "mqar");
  assert_string_equal(sq_config_swept(c), "{}");
  sq_experiment_destroy(&e);
  assert_null(e);
}

/* In a process of its own, since a bug ends the program. */
static int stops_the_program(const sq_config *c, int which)
{
  int status = 0;
  const pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    const int null = open("/dev/null", O_WRONLY);
    signal(SIGABRT, SIG_DFL); /* cmocka's handler would report a failed test */
    if (null >= 0) (void)dup2(null, 2);
    if (which == 0) (void)sq_config_int(c, "no.such");
    if (which == 1) (void)sq_config_real(c, "model.dt_min");
    if (which == 2) (void)sq_config_string(c, "train.lr");
    if (which == 3) (void)sq_config_int(c, "train.total_steps");
    if (which == 4) (void)sq_config_real_at(c, "train.betas", 2);
    _exit(0);
  }
  assert_int_equal(waitpid(child, &status, 0), child);
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void asking_for_what_is_not_there_is_a_bug(void **state)
{
  (void)state;
  write_json("one.json", CELL);
  sq_experiment *e = load("one.json");
  for (int i = 0; i < 5; ++i) assert_true(stops_the_program(AT(e, 0), i));
  assert_false(stops_the_program(AT(e, 0), 5));
  sq_experiment_destroy(&e);
}

static void canonical_json_is_sorted_complete_and_shortest(void **state)
{
  (void)state;
  write_json("one.json", "{'label':'caf\xC3\xA9 \\\\1',"
                         "'train':{'batch_size':64,'lr':0.30000000000000004,'wd':1e-7}," SSM
                         ",'dataset':{'_name_':'listops'}}");
  sq_experiment *e = load("one.json");
  const char *cell =
      "{\"analysis\":{\"batch_size\":64,\"protocols\":[\"dsf\"]},"
      "\"dataset\":{\"_name_\":\"listops\",\"max_depth\":10},\"label\":\"caf\xC3\xA9 \\\\1\","
      "\"model\":{\"dt_min\":0.001,\"layer\":\"ssm\",\"num_layers\":2},\"run\":{\"team\":\"auto\"},\"seed\":"
      "1919,"
      "\"train\":{\"batch_size\":64,\"betas\":[0.9,0.999],\"lr\":0.30000000000000004,\"wd\":1e-07}}";
  char whole[1024];
  assert_string_equal(sq_config_json(AT(e, 0)), cell);
  sq_format(whole, sizeof whole, "{\"cells\":[%s],\"name\":\"one\"}", cell);
  assert_string_equal(sq_experiment_json(e), whole);
  sq_experiment_destroy(&e);
}

static void canonical_json_reads_back_as_the_same_cell(void **state)
{
  (void)state;
  write_json("a.json", "{" MQAR "," TRAIN "," NORM "}");
  write_json("b.json",
             "{'dataset':{'_name_':'listops'},'train':{'lr':0.1,'batch_size':1,'total_steps':9}," SSM "}");
  write_json("grid.json",
             "{'base':['a.json','b.json'],'sweep':{'seed':[1,2],'train.lr':[1e-4,0.1,3,2.15443e-3]}}");
  sq_experiment *e = load("grid.json");
  assert_int_equal(sq_experiment_ncell(e), 16);
  for (int i = 0; i < 16; ++i) {
    sq_experiment *again = NULL;
    assert_int_equal(sq_experiment_parse(test_schema(), sq_config_json(AT(e, i)), "again", &again), SQ_OK);
    assert_string_equal(sq_config_json(AT(again, 0)), sq_config_json(AT(e, i)));
    assert_string_equal(sq_config_model_label(AT(again, 0)), sq_config_model_label(AT(e, i)));
    sq_experiment_destroy(&again);
  }
  sq_experiment_destroy(&e);
}

static void a_grid_is_the_product_in_order_with_the_last_key_fastest(void **state)
{
  static const char *const label[] = {"m2 num_layers=1 lr=0.1", "m2 num_layers=1 lr=0.01",
                                      "m2 num_layers=4 lr=0.1", "m2 num_layers=4 lr=0.01",
                                      "m1 num_layers=1 lr=0.1", "m1 num_layers=1 lr=0.01",
                                      "m1 num_layers=4 lr=0.1", "m1 num_layers=4 lr=0.01"};
  (void)state;
  write_json("m1.json", CELL);
  write_json("m2.json", "{" MQAR "," TRAIN "," NORM "}");
  write_json("grid.json", "{'name':'a grid','base':['m2.json','m1.json'],"
                          "'sweep':{'model':{'num_layers':[1,4]},'train':{'lr':[0.1,0.01]}}}");
  sq_experiment *e = load("grid.json");
  assert_string_equal(sq_experiment_name(e), "a grid");
  assert_int_equal(sq_experiment_ncell(e), COUNT(label));
  for (int i = 0; i < COUNT(label); ++i) {
    assert_string_equal(sq_config_label(AT(e, i)), label[i]);
    assert_int_equal(sq_config_int(AT(e, i), "model.num_layers"), i / 2 % 2 == 0 ? 1 : 4);
    assert_true(sq_config_real(AT(e, i), "train.lr") == (i % 2 == 0 ? 0.1 : 0.01));
  }
  assert_string_equal(sq_config_swept(AT(e, 3)), "{\"model.num_layers\":4,\"train.lr\":0.01}");
  assert_string_equal(sq_config_model_label(AT(e, 4)), "m1");
  sq_experiment_destroy(&e);
}

/* The keys that apply are those of the swept value, cell by cell. */
static void a_sweep_may_choose_the_model_and_the_task(void **state)
{
  (void)state;
  write_json("m.json",
             "{'dataset':{'_name_':'mqar','input_seq_length':8,'num_kv_pairs':2,'max_depth':3}," TRAIN
             ",'model':{'layer':'transformer','num_layers':2,'hidden_dim':64,'attention_fn':'sm-attention','"
             "norm_fn':'elu'}}");
  write_json("grid.json", "{'base':'m.json','sweep':{'dataset._name_':['listops','mqar'],'seed':[1,2,3],"
                          "'model.attention_fn':['sm-attention','norm-attention']}}");
  sq_experiment *e = load("grid.json");
  assert_int_equal(sq_experiment_ncell(e), 12);
  for (int i = 0; i < 12; ++i) {
    assert_int_equal(sq_config_has(AT(e, i), "dataset.max_depth"), i < 6);
    assert_int_equal(sq_config_has(AT(e, i), "dataset.num_kv_pairs"), i >= 6);
    assert_int_equal(sq_config_has(AT(e, i), "model.norm_fn"), i % 2);
    assert_int_equal(sq_config_int(AT(e, i), "seed"), i / 2 % 3 + 1);
    assert_string_equal(sq_config_task_label(AT(e, i)), i < 6 ? "listops" : "mqar");
  }
  assert_string_equal(sq_config_label(AT(e, 11)), "m _name_=mqar seed=3 attention_fn=norm-attention");
  sq_experiment_destroy(&e);
}

static void bases_are_globs_relative_to_the_grid(void **state)
{
  (void)state;
  assert_int_equal(mkdir("cells", 0777) | mkdir("g[1]", 0777), 0);
  write_json("cells/b.json", CELL);
  write_json("cells/a.json", CELL);
  write_json("cells/c.txt", "no JSON");
  write_json("g[1]/last.json", CELL);
  write_json("g[1]/grid.json", "{'base':['last.json','../cells/*.json'],'sweep':{}}");
  sq_experiment *e = load("g[1]/grid.json");
  assert_int_equal(sq_experiment_ncell(e), 3);
  assert_string_equal(sq_config_label(AT(e, 0)), "last");
  assert_string_equal(sq_config_label(AT(e, 1)), "a");
  assert_string_equal(sq_config_label(AT(e, 2)), "b");
  sq_experiment_destroy(&e);
}

static void base_config_is_found_under_the_nearest_folder_configs(void **state)
{
  (void)state;
  assert_int_equal(mkdir("configs", 0777) | mkdir("configs/mqar", 0777) | mkdir("configs/x", 0777) |
                       mkdir("configs/x/configs", 0777) | mkdir("configs/x/configs/mqar", 0777),
                   0);
  write_json("configs/mqar/m.json", CELL);
  write_json("configs/x/configs/mqar/m.json", "{'seed':7," MQAR "," TRAIN "," SM "}");
  write_json("configs/x/outer.json", "{'base_config':'mqar/m','sweep':{'seed':[1,2]}}");
  write_json("configs/x/configs/inner.json", "{'base_config':'mqar/m.json'}");
  write_json("configs/x/bad.json", "{'base_config':'mqar/none'}");
  sq_experiment *e = load("configs/x/outer.json");
  assert_string_equal(sq_config_label(AT(e, 1)), "m seed=2");
  sq_experiment_destroy(&e);
  e = load("configs/x/configs/inner.json");
  assert_int_equal(sq_config_int(AT(e, 0), "seed"), 7);
  sq_experiment_destroy(&e);
  assert_int_equal(sq_experiment_load(test_schema(), "configs/x/bad.json", 0, NULL, &e), SQ_ERR_USAGE);
  assert_string_equal(
      sq_error_text(),
      "configs/x/bad.json: base_config: \"mqar/none\" is no file, expected configs/NAME.json");
}

static void set_wins_over_the_sweep_which_wins_over_the_grid_which_wins_over_the_base(void **state)
{
  const char *const set[] = {"train.betas=[0.1,0.2]", "dataset.data_dir=/some/where", "train.batch_size=7",
                             "train.batch_size=8",    "run={\"team\":\"off\"}",       "seed=5"};
  sq_experiment *e = NULL;
  (void)state;
  write_json("cell.json", CELL);
  write_json("grid.json", "{'base':'cell.json','train':{'lr':0.5,'batch_size':2},'model':{'num_layers':9},"
                          "'sweep':{'seed':[1,2],'model.num_heads':[1,2]}}");
  sq_log_quiet(1);
  assert_int_equal(sq_experiment_load(test_schema(), "grid.json", COUNT(set), set, &e), SQ_OK);
  sq_log_quiet(0);
  assert_int_equal(sq_experiment_ncell(e), 2); /* the sweep of the seed is gone */
  for (int i = 0; i < 2; ++i) {
    const sq_config *c = AT(e, i);
    assert_int_equal(sq_config_int(c, "seed"), 5);
    assert_true(sq_config_real(c, "train.lr") == 0.5);
    assert_int_equal(sq_config_int(c, "train.batch_size"), 8); /* the last one counts */
    assert_true(sq_config_real_at(c, "train.betas", 0) == 0.1);
    assert_string_equal(sq_config_string(c, "dataset.data_dir"), "/some/where");
    assert_string_equal(sq_config_string(c, "run.team"), "off");
    assert_int_equal(sq_config_int(c, "model.num_layers"), 9);
    assert_int_equal(sq_config_int(c, "model.num_heads"), i + 1);
    assert_string_equal(sq_config_label(c), i == 0 ? "cell num_heads=1" : "cell num_heads=2");
  }
  sq_experiment_destroy(&e);
}

/* What a load prints on stderr. */
static void notes_of(const char *path, char *out, size_t cap)
{
  fflush(stderr);
  const int keep = dup(2), file = open("stderr.txt", O_RDWR | O_CREAT | O_TRUNC, 0666);
  assert_true(keep >= 0 && file >= 0 && dup2(file, 2) == 2);
  sq_experiment *e = load(path);
  fflush(stderr);
  assert_int_equal(dup2(keep, 2), 2);
  const ssize_t n = pread(file, out, cap - 1, 0);
  assert_true(n >= 0);
  out[n] = '\0';
  close(keep);
  close(file);
  sq_experiment_destroy(&e);
}

static void a_key_of_another_model_is_noted_once_for_a_file(void **state)
{
  char notes[1024];
  (void)state;
  write_json("a.json",
             "{" MQAR "," TRAIN ",'model':{'layer':'ssm','num_layers':2,'norm_fn':'exp','hidden_dim':3}}");
  write_json("b.json", "{" MQAR "," TRAIN "," NORM "}");
  write_json("grid.json", "{'base':['a.json','b.json'],'dataset':{'max_depth':3},'model':{'hidden_dim':8},'"
                          "sweep':{'seed':[1,2,3]}}");
  notes_of("grid.json", notes, sizeof notes);
  assert_string_equal(notes,
                      "note: grid.json: dataset.max_depth: has no meaning for this model and task, ignored\n"
                      "note: a.json: model.hidden_dim: has no meaning for this model and task, ignored\n"
                      "note: a.json: model.norm_fn: has no meaning for this model and task, ignored\n");
}

static void published_keys_without_meaning_are_accepted(void **state)
{
  char notes[1024];
  (void)state;
  write_json(
      "a.json",
      "{'save':true,'wandb':{'project':'x','tags':[1]},'GPU':0,'optimization':{'jax_seed':1919,'a':{'b':1}},"
      "'dataset':{'name':'MQAR','_name_':'mqar','input_seq_length':64,'num_kv_pairs':4,'fixed_size':true,'"
      "version':103},"
      "'train':{'lr':0.001,'batch_size':64,'param_group':null,'cosine_anneal':true},"
      "'model':{'layer':'ssm','num_layers':2,'use_flash':false,'learn_A':false,'mode':'attention','version':'"
      "mamba2',"
      "'decode':false,'discretization':'zoh','mlp_dim':512}}");
  notes_of("a.json", notes, sizeof notes);
  assert_string_equal(notes, "");
  write_json("b.json", "{" MQAR "," TRAIN ",'model':{'layer':'ssm','num_layers':2,'use_flash':true}}");
  notes_of("b.json", notes, sizeof notes);
  assert_string_equal(notes,
                      "note: b.json: model.use_flash: computed exactly, not with fp16 flash attention\n");
}

/* Measured: 9 MB, with sanitizers 74 (and 0.05 and 0.35 s).  Cells share what they do not vary: 2 kB for each would be 200 MB. */
static void a_large_grid_takes_little_memory(void **state)
{
  (void)state;
  write_json("cell.json", CELL);
  FILE *f = fopen("large.json", "w");
  assert_non_null(f);
  fprintf(f, "{\"base\":\"cell.json\",\"sweep\":{\"seed\":[0");
  for (int i = 1; i < 10000; ++i) fprintf(f, ",%d", i);
  fprintf(f, "],\"train.lr\":[1,2,3,4,5,6,7,8,9,10]}}");
  fclose(f);
  const double start = sq_wall_s(), before = (double)sq_peak_bytes();
  sq_experiment *e = load("large.json");
  const double wall_s = sq_wall_s() - start;
  assert_int_equal(sq_experiment_ncell(e), 100000);
  assert_string_equal(sq_config_label(AT(e, 99999)), "cell seed=9999 lr=10");
  const double more = (double)sq_peak_bytes() - before;
  print_message("%.2f s, %.0f MB\n", wall_s, more / 1e6);
  assert_true(more < 150e6);
  sq_experiment_destroy(&e);
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_cell_has_its_values_and_the_defaults),
      cmocka_unit_test(asking_for_what_is_not_there_is_a_bug),
      cmocka_unit_test(canonical_json_is_sorted_complete_and_shortest),
      cmocka_unit_test(canonical_json_reads_back_as_the_same_cell),
      cmocka_unit_test(a_grid_is_the_product_in_order_with_the_last_key_fastest),
      cmocka_unit_test(a_sweep_may_choose_the_model_and_the_task),
      cmocka_unit_test(bases_are_globs_relative_to_the_grid),
      cmocka_unit_test(base_config_is_found_under_the_nearest_folder_configs),
      cmocka_unit_test(set_wins_over_the_sweep_which_wins_over_the_grid_which_wins_over_the_base),
      cmocka_unit_test(a_key_of_another_model_is_noted_once_for_a_file),
      cmocka_unit_test(published_keys_without_meaning_are_accepted),
      cmocka_unit_test(a_large_grid_takes_little_memory),
  };
  return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
