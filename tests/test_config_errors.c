/* tests/test_config_errors.c: what is refused, and in which words. */
#include "config_schema.h"

typedef struct {
  const char *file;    /* cell.json, or NULL for a good cell */
  const char *grid;    /* grid.json, loaded instead of the cell; or NULL */
  const char *set;     /* one --set, or NULL */
  const char *message; /* the whole of it */
} bad;

#define MODEL(m)                                                                                             \
  "{" MQAR "," TRAIN                                                                                         \
  ",'model':{'layer':'transformer','num_layers':2,'hidden_dim':64,'attention_fn':'sm-attention'," m "}}"
#define DATA(d) "{'dataset':{'_name_':'mqar','input_seq_length':64,'num_kv_pairs':4," d "}," TRAIN "," SM "}"
#define STEP(t) "{" MQAR ",'train':{'lr':0.001,'batch_size':64," t "}," SM "}"
#define GRID(g) "{'base':'cell.json'," g "}"

static const bad table[] = {
    /* text */
    {"", NULL, NULL, "cell.json: empty, expected a JSON object"},
    {" \n\t", NULL, NULL, "cell.json: empty, expected a JSON object"},
    {"[1,2]", NULL, NULL,
     "cell.json: is a list, expected an object with dataset, train and model, or with base and sweep"},
    {"3", NULL, NULL,
     "cell.json: is a number, expected an object with dataset, train and model, or with base and sweep"},
    {"{'seed': 1,\n  'train': {'lr': 0.1,}}", NULL, NULL,
     "cell.json: line 2, column 23: not JSON at `}}`; no comma after the last element"},
    {"{'seed': 1", NULL, NULL, "cell.json: line 1, column 11: not JSON: the text ends too early"},
    {"{'seed': 1} x", NULL, NULL, "cell.json: line 1, column 13: not JSON at `x`"},
    {"{'seed': NaN}", NULL, NULL,
     "cell.json: line 1, column 10: not JSON at `NaN}`; JSON has no NaN or Infinity"},
    {"{\n// why\n'seed': 1}", NULL, NULL,
     "cell.json: line 2, column 1: not JSON at `// why?\"seed\": 1`; JSON has no comments"},
    {"{'seed' 1}", NULL, NULL, "cell.json: line 1, column 9: not JSON at `1}`"},
    {" {\001\024\341\214\213tr", NULL, NULL,
     "cell.json: line 1, column 5: not JSON at `\341\214\213tr`"}, /* the parser stops within a character */
    {"{'dataset': {'data_dir': '\xC3\xA9t\xFF'}}", NULL, NULL,
     "cell.json: line 1, column 29: not UTF-8, expected text in UTF-8"},
    {"{'dataset': {'data_dir': 'a\nb'}}", NULL, NULL,
     "cell.json: line 1, column 28: line break or control character in a string, expected a closing \" or an "
     "escape"},
    {"{'dataset': {'data_dir': 'a\\u0000b'}}", NULL, NULL,
     "cell.json: line 1, column 28: NUL in a string (\\u0000)"},
    {"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", NULL, NULL,
     "cell.json: line 1, column 33: nested too deep, expected at most 32 levels"},
    {STEP("'wd':1e999"), NULL, NULL, "cell.json: train.wd: number too large, expected one below 1.8e308"},
    {"{" MQAR "," TRAIN "," SM "," TRAIN "}", NULL, NULL, "cell.json: train: given twice, expected once"},
    {STEP("'lr':0.1"), NULL, NULL, "cell.json: train.lr: given twice, expected once"},
    {"{'train.lr':1," MQAR "," TRAIN "," SM "}", NULL, NULL,
     "cell.json: train.lr: given twice, expected once"},
    /* keys */
    {MODEL("'num_head':1"), NULL, NULL,
     "cell.json: unknown key \"model.num_head\"; did you mean \"model.num_heads\"?"},
    {STEP("'num_heads':1"), NULL, NULL,
     "cell.json: unknown key \"train.num_heads\"; did you mean \"model.num_heads\"?"},
    {"{'modle':{}," MQAR "," TRAIN "," SM "}", NULL, NULL,
     "cell.json: unknown key \"modle\"; did you mean \"model\"?"},
    {"{'swep':{}," MQAR "," TRAIN "," SM "}", NULL, NULL,
     "cell.json: unknown key \"swep\"; did you mean \"sweep\"?"},
    {MODEL("'xyzzy_plugh':1"), NULL, NULL,
     "cell.json: unknown key \"model.xyzzy_plugh\"; no known key is close to it (seqspectra help config "
     "lists them)"},
    {STEP("'lr\\n':1"), NULL, NULL, "cell.json: unknown key \"train.lr?\"; did you mean \"train.lr\"?"},
    {STEP("'':1"), NULL, NULL, "cell.json: unknown key \"train.\"; did you mean \"train.lr\"?"},
    {"{" MQAR "," SM "}", NULL, NULL,
     "cell.json: train.batch_size: required key is missing, expected an integer in 1..65536"},
    {"{}", NULL, NULL, "cell.json: dataset._name_: required key is missing, expected mqar|listops"},
    {"{" MQAR "," TRAIN "}", NULL, NULL,
     "cell.json: model.layer: required key is missing, expected transformer|ssm"},
    {"{" MQAR "," TRAIN
     ",'model':{'layer':'transformer','num_layers':1,'hidden_dim':8,'attention_fn':'norm-attention'}}",
     NULL, NULL, "cell.json: model.norm_fn: required key is missing, expected exp|elu|softplus|sigmoid"},
    {"{" MQAR "," TRAIN ",'model':{'layer':'ssm-lti'}}", NULL, NULL,
     "cell.json: model.layer: is \"ssm-lti\", expected transformer|ssm; did you mean \"ssm\"?"},
    {"{" MQAR "," TRAIN ",'model':{'layer':'trans'}}", NULL, NULL,
     "cell.json: model.layer: is \"trans\", expected transformer|ssm; did you mean \"transformer\"?"},
    /* types and ranges */
    {MODEL("'num_heads':'4'"), NULL, NULL,
     "cell.json: model.num_heads: is \"4\", expected an integer in 1..64"},
    {MODEL("'num_heads':3.5"), NULL, NULL,
     "cell.json: model.num_heads: is 3.5, expected an integer in 1..64"},
    {MODEL("'num_heads':0"), NULL, NULL, "cell.json: model.num_heads: is 0, expected an integer in 1..64"},
    {MODEL("'num_heads':[4]"), NULL, NULL,
     "cell.json: model.num_heads: is a list, expected an integer in 1..64"},
    {MODEL("'num_heads':{'a':1}"), NULL, NULL,
     "cell.json: model.num_heads: is an object, expected an integer in 1..64"},
    {MODEL("'num_heads':null"), NULL, NULL,
     "cell.json: model.num_heads: is null, expected an integer in 1..64"},
    {MODEL("'num_heads':1e30"), NULL, NULL,
     "cell.json: model.num_heads: is 1e+30, expected an integer in 1..64"},
    {MODEL("'use_gate':1"), NULL, NULL, "cell.json: model.use_gate: is 1, expected true or false"},
    {MODEL("'dropout':1.5"), NULL, NULL, "cell.json: model.dropout: is 1.5, expected a number in 0..0.999"},
    {MODEL("'dropout':true"), NULL, NULL, "cell.json: model.dropout: is true, expected a number in 0..0.999"},
    {STEP("'total_steps':0"), NULL, NULL, "cell.json: train.total_steps: is 0, expected an integer >= 1"},
    {STEP("'betas':0.9"), NULL, NULL,
     "cell.json: train.betas: is 0.9, expected a list of numbers in 0..0.9999999"},
    {STEP("'betas':[0.9,'x']"), NULL, NULL, "cell.json: train.betas[1]: is \"x\", expected a number"},
    {STEP("'betas':[0.9,1]"), NULL, NULL,
     "cell.json: train.betas[1]: is 1, expected a list of numbers in 0..0.9999999"},
    {DATA("'data_dir':3"), NULL, NULL, "cell.json: dataset.data_dir: is 3, expected a string"},
    {"{'dataset':3," TRAIN "," SM "}", NULL, NULL, "cell.json: dataset: is 3, expected an object"},
    {"{'analysis':{'protocols':['dsf','publised']}," MQAR "," TRAIN "," SM "}", NULL, NULL,
     "cell.json: analysis.protocols[1]: is \"publised\", expected a list of dsf|published; did you mean "
     "\"published\"?"},
    {"{'dataset':{'_name_':'mqrr'}," TRAIN "," SM "}", NULL, NULL,
     "cell.json: dataset._name_: is \"mqrr\", expected mqar|listops; did you mean \"mqar\"?"},
    {"{" MQAR "," TRAIN ",'model':{'layer':'mamba','state_size':3}}", NULL, NULL,
     "cell.json: model.layer: is \"mamba\", expected transformer|ssm"},
    {"{" MQAR "," TRAIN ",'model':{'layer':'ssm','num_layers':9}}", NULL, NULL,
     "cell.json: model.num_layers: is 9, expected an integer in 1..8"},
    {STEP("'param_group':'a'"), NULL, NULL, "cell.json: train.param_group: is \"a\", expected null"},
    {MODEL("'mode':'fast'"), NULL, NULL, "cell.json: model.mode: is \"fast\", expected \"attention\""},
    {"{'label':'a/b'," MQAR "," TRAIN "," SM "}", NULL, NULL,
     "cell.json: label: is \"a/b\", expected a name of 1 to 100 bytes without /"},
    {"{'name':7," MQAR "," TRAIN "," SM "}", NULL, NULL, "cell.json: name: is 7, expected a string"},
    /* conditions across keys */
    {MODEL("'num_heads':7"), NULL, NULL,
     "cell.json: model.num_heads: is 7, expected a divisor of hidden_dim 64"},
    {"{'dataset':{'_name_':'mqar','input_seq_length':64,'num_kv_pairs':17}," TRAIN "," SM "}", NULL, NULL,
     "cell.json: dataset.input_seq_length: is 64, expected at least 68"},
    /* --set */
    {NULL, NULL, "train.lr", "--set: is \"train.lr\", expected KEY=VALUE like train.lr=1e-3"},
    {NULL, NULL, "=3", "--set: is \"=3\", expected KEY=VALUE like train.lr=1e-3"},
    {NULL, NULL, "train.lrr=1", "--set: unknown key \"train.lrr\"; did you mean \"train.lr\"?"},
    {NULL, NULL, "train.lr=fast", "--set: train.lr: is \"fast\", expected a number >= 0"},
    {NULL, NULL, "train.lr=-1", "--set: train.lr: is -1, expected a number >= 0"},
    {NULL, NULL, "train=1", "--set: train: is 1, expected an object"},
    {NULL, NULL, "model.norm_fn=exp",
     "--set: model.norm_fn: applies to no cell here, expected a key of their models and tasks"},
    /* grids */
    {NULL, "{'sweep':{'seed':[1]}}", NULL,
     "grid.json: base: is missing, expected the cell files that the sweep varies"},
    {NULL, "{'base':3}", NULL, "grid.json: base: is 3, expected a path or a list of paths"},
    {NULL, "{'base':[]}", NULL, "grid.json: base: is empty, expected a path or a list of paths"},
    {NULL, "{'base':['cell.json',3]}", NULL, "grid.json: base[1]: is 3, expected a path"},
    {NULL, "{'base':['cell.json','none*.json']}", NULL,
     "grid.json: base[1]: \"none*.json\" matches no file, expected a path or pattern relative to this file"},
    {NULL, "{'base':'grid.json'}", NULL, "grid.json: base: grid.json is a grid itself, expected a cell file"},
    {NULL, "{'base':'.'}", NULL, ".: is a directory, expected a configuration file"},
    {NULL, "{'base':'cell.json','base_config':'x'}", NULL,
     "grid.json: base_config: given beside base, expected one of the two"},
    {NULL, "{'base_config':'a/b'}", NULL,
     "grid.json: base_config: no folder configs/ above this file, expected one; or use \"base\""},
    {NULL, "{'base':['cell.json','cell.json']}", NULL,
     "grid.json: base: two cells are identical: cell.json and cell.json, expected each once"},
    {NULL, GRID("'sweep':[1]"), NULL, "grid.json: sweep: is a list, expected an object of lists"},
    {NULL, GRID("'sweep':{'seed':[]}"), NULL, "grid.json: sweep.seed: is empty, expected at least one value"},
    {NULL, GRID("'sweep':{'seed':5}"), NULL, "grid.json: sweep.seed: is 5, expected a list of values"},
    {NULL, GRID("'sweep':{'sed':[1]}"), NULL, "grid.json: unknown key \"sed\"; did you mean \"seed\"?"},
    {NULL, GRID("'sweep':{'train':[1]}"), NULL, "grid.json: sweep.train: is a list, expected an object"},
    {NULL, GRID("'sweep':{'train':{'lr':[1]},'train.lr':[2]}"), NULL,
     "grid.json: sweep.train.lr: given twice, expected once"},
    {NULL, GRID("'sweep':{'seed':[1,2,1.0]}"), NULL,
     "grid.json: sweep.seed: 1 is listed twice, expected each value once"},
    {NULL, GRID("'sweep':{'seed':[1,'two']}"), NULL,
     "grid.json: sweep.seed[1]: is \"two\", expected an integer >= 0"},
    {NULL, GRID("'sweep':{'model.num_layers':[1,2,2000]}"), NULL,
     "grid.json: sweep.model.num_layers[2]: is 2000, expected an integer in 1..1024"},
    {NULL, GRID("'sweep':{'model.attention_fn':['sm-attention','lin-atention']}"), NULL,
     "grid.json: sweep.model.attention_fn[1]: is \"lin-atention\", expected "
     "sm-attention|lin-attention|norm-attention; did you mean "
     "\"lin-attention\"?"},
    {NULL, GRID("'sweep':{'model.norm_fn':['exp','elu']}"), NULL,
     "grid.json: sweep.model.norm_fn: does not apply to cell.json, expected a key of every base's model and "
     "task"},
    {NULL, GRID("'sweep':{'dataset.fixed_size':[true]}"), NULL,
     "grid.json: sweep.dataset.fixed_size: has no meaning here, expected a key that changes the run"},
    {NULL, GRID("'sweep':{'seed':[1,2]},'seed':3"), NULL,
     "grid.json: seed: given for all cells and swept, expected one of the two"},
    {NULL, GRID("'sweep':{'model.num_heads':[4,6,8]}"), NULL,
     "grid.json: cell \"cell num_heads=6\": model.num_heads: is 6, expected a divisor of hidden_dim 64"},
    {NULL, GRID("'label':'x'"), NULL, "grid.json: label: given in a grid, expected in a cell file"},
    {NULL, GRID("'name':''"), NULL, "grid.json: name: is \"\", expected a name of 1 to 100 bytes without /"},
    {NULL, GRID("'train':{'lr':'x'}"), NULL, "grid.json: train.lr: is \"x\", expected a number >= 0"},
    {MODEL("'num_heads':0"), GRID("'sweep':{'seed':[1]}"), NULL,
     "cell.json: model.num_heads: is 0, expected an integer in 1..64"},
    {"{'seed':", GRID("'sweep':{'seed':[1]}"), NULL,
     "cell.json: line 1, column 9: not JSON: the text ends too early"},
};

static void every_bad_file_is_refused_with_its_message(void **state)
{
  int wrong = 0;
  (void)state;
  for (int i = 0; i < COUNT(table); ++i) {
    const bad *b = &table[i];
    sq_experiment *e = (sq_experiment *)(uintptr_t)1;
    write_json("cell.json", b->file != NULL ? b->file : CELL);
    write_json("grid.json", b->grid != NULL ? b->grid : "{}");
    sq_error_clear();
    const sq_status st = sq_experiment_load(test_schema(), b->grid != NULL ? "grid.json" : "cell.json",
                                            b->set != NULL, &b->set, &e);
    if (st == SQ_ERR_USAGE && strcmp(sq_error_text(), b->message) == 0 && e == NULL) continue;
    print_error("file %d: status %d\n  got      %s\n  expected %s\n", i, (int)st, sq_error_text(),
                b->message);
    ++wrong;
    if (st == SQ_OK) sq_experiment_destroy(&e);
  }
  assert_true(COUNT(table) >= 30);
  assert_int_equal(wrong, 0);
}

static void expect_refusal(const char *path, const char *message)
{
  sq_experiment *e = NULL;
  sq_error_clear();
  assert_int_equal(sq_experiment_load(test_schema(), path, 0, NULL, &e), SQ_ERR_USAGE);
  assert_string_equal(sq_error_text(), message);
  assert_null(e);
}

static void files_that_cannot_be_read_are_refused(void **state)
{
  (void)state;
  expect_refusal("none.json",
                 "none.json: cannot be read (No such file or directory), expected a configuration file");
  expect_refusal(".", ".: is a directory, expected a configuration file");
  expect_refusal("/dev/null", "/dev/null: is not a regular file, expected a configuration file");
  write_bytes("nul.json", "{\"seed\":1\0}", 11);
  expect_refusal("nul.json", "nul.json: line 1, column 10: NUL byte, expected text");
  write_bytes("big.json", "{}", 2);
  assert_int_equal(truncate("big.json", (off_t)17 << 20), 0);
  expect_refusal("big.json", "big.json: has 17825792 bytes, expected a configuration of at most 16 MiB");
}

/* Three lists of 101 values: 101^3 = 1,030,301 cells. */
static void absurdly_many_cells_are_refused_before_they_are_made(void **state)
{
  static const char *const key[] = {"seed", "train.batch_size", "dataset.input_seq_length"};
  FILE *f = fopen("many.json", "w");
  (void)state;
  write_json("cell.json", CELL);
  assert_non_null(f);
  fprintf(f, "{\"base\":\"cell.json\",\"sweep\":{");
  for (int k = 0; k < 3; ++k) {
    fprintf(f, "%s\"%s\":[", k > 0 ? "," : "", key[k]);
    for (int i = 0; i < 101; ++i) fprintf(f, "%s%d", i > 0 ? "," : "", i + 64);
    fprintf(f, "]");
  }
  fprintf(f, "}}");
  fclose(f);
  expect_refusal("many.json", "many.json: sweep: makes 1030301 cells of 1 base, expected at most 1000000");
}

static void bases_of_one_name_must_differ_in_their_task(void **state)
{
  (void)state;
  assert_int_equal(mkdir("a", 0777) | mkdir("b", 0777), 0);
  write_json("a/m.json", "{" MQAR "," TRAIN "," SM "}");
  write_json("b/m.json", "{" MQAR "," TRAIN "," NORM "}");
  write_json("same.json", "{'base':['a/m.json','b/m.json']}");
  expect_refusal(
      "same.json",
      "same.json: base: a/m.json and b/m.json have the same name \"m\", expected different ones; a cell "
      "file may set \"label\"");
  write_json("b/m.json", "{'dataset':{'_name_':'listops'}," TRAIN "," NORM "}");
  sq_experiment *e = load("same.json");
  assert_string_equal(sq_config_label(sq_experiment_cell(e, 0)), "m task=mqar");
  assert_string_equal(sq_config_label(sq_experiment_cell(e, 1)), "m task=listops");
  sq_experiment_destroy(&e);
}

static void a_parsed_text_must_be_one_cell(void **state)
{
  sq_experiment *e = NULL;
  (void)state;
  sq_error_clear();
  assert_int_equal(sq_experiment_parse(test_schema(), "{\"base\":\"x\"}", "case.h5", &e), SQ_ERR_USAGE);
  assert_string_equal(sq_error_text(), "case.h5: base: is a grid, expected one cell");
}

/* Every beginning of a valid file, and every file with one byte changed: an answer, never a crash. */
static void damaged_files_never_crash(void **state)
{
  char text[1024];
  int accepted = 0;
  (void)state;
  write_json("cell.json", "{'name':'n','label':'l\\u00e9'," MQAR
                          ",'train':{'lr':1e-3,'batch_size':64,'betas':[0.9,0.95]}," NORM "}");
  FILE *f = fopen("cell.json", "rb");
  assert_non_null(f);
  const size_t n = fread(text, 1, sizeof text - 1, f);
  fclose(f);
  sq_log_quiet(1);
  for (size_t i = 0; i < n; ++i) {
    for (int damage = 0; damage < 6; ++damage) {
      static const char replacement[] = {'\0', '"', '{', '\\', '9', '\xC3'};
      char copy[1024];
      sq_experiment *e = NULL;
      memcpy(copy, text, n);
      if (damage > 0) copy[i] = replacement[damage];
      write_bytes("damaged.json", copy, damage == 0 ? i : n);
      sq_error_clear();
      const sq_status st = sq_experiment_load(test_schema(), "damaged.json", 0, NULL, &e);
      assert_true(st == SQ_OK || (st == SQ_ERR_USAGE && e == NULL && sq_error_text()[0] != '\0'));
      if (st == SQ_OK) {
        ++accepted;
        assert_non_null(sq_experiment_json(e));
        sq_experiment_destroy(&e);
      }
      assert_true(st != SQ_OK || damage > 0); /* no proper beginning is a whole file */
    }
  }
  sq_log_quiet(0);
  assert_true(accepted > 0); /* some changes are harmless: a digit, a letter of a name */
}

int main(void)
{
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_bad_file_is_refused_with_its_message),
      cmocka_unit_test(files_that_cannot_be_read_are_refused),
      cmocka_unit_test(absurdly_many_cells_are_refused_before_they_are_made),
      cmocka_unit_test(bases_of_one_name_must_differ_in_their_task),
      cmocka_unit_test(a_parsed_text_must_be_one_cell),
      cmocka_unit_test(damaged_files_never_crash),
  };
  return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
