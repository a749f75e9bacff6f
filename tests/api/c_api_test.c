/* Goal: the C interface does what its header says, for a program that knows no C++. Method: every
 * function with good arguments, each pointer NULL, and each error code that can be reached, in
 * directories of their own; stops at the first expectation that does not hold. */
#include <dirent.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/c/stepstone.h"

/* The checks' advice is functions that C11 makes optional and glibc does not have.
 * NOLINTBEGIN(clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling) */

#define EXPECT(condition)                                                                       \
  do {                                                                                          \
    if (!(condition)) {                                                                         \
      fprintf(stderr, "%s:%d: expected %s; last error: '%s'\n", __FILE__, __LINE__, #condition, \
              stepstone_error_text());                                                          \
      exit(1);                                                                                  \
    }                                                                                           \
  } while (0)

/* Every failure has a text, every success an empty one. */
#define EXPECT_CODE(expected, call)                                              \
  do {                                                                           \
    const stepstone_code expect_code = (call);                                   \
    if (expect_code != (expected)) {                                             \
      fprintf(stderr, "%s:%d: %s gave %s: '%s'\n", __FILE__, __LINE__, #call,    \
              stepstone_code_name(expect_code), stepstone_error_text());         \
      exit(1);                                                                   \
    }                                                                            \
    EXPECT((stepstone_error_text()[0] == '\0') == ((expected) == STEPSTONE_OK)); \
  } while (0)
#define EXPECT_OK(call) EXPECT_CODE(STEPSTONE_OK, call)
#define EXPECT_INVALID(call) EXPECT_CODE(STEPSTONE_INVALID_ARGUMENT, call)
#define EXPECT_TEXT(part) EXPECT(strstr(stepstone_error_text(), part) != NULL)

static char directory[] = "/tmp/stepstone_c_XXXXXX";

static const char* path_of(const char* name) {
  static char path[256];
  snprintf(path, sizeof(path), "%s/%s", directory, name);
  return path;
}

static stepstone_store* open_store(const char* name, stepstone_options options) {
  stepstone_store* store = NULL;
  EXPECT_OK(stepstone_open(path_of(name), &options, &store));
  return store;
}

static stepstone_options synchronous(void) {
  stepstone_options options = STEPSTONE_OPTIONS_INIT;
  options.async = 0;
  return options;
}

static int equal_floats(const float* a, const float* b, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (a[i] != b[i]) return 0;
  }
  return 1;
}

/* A checkpoint of one array of six floats, which begin at `first`. */
static stepstone_checkpoint* six_floats(const char* item, float* values, float first) {
  const uint64_t shape[] = {2, 3};
  stepstone_checkpoint* checkpoint = NULL;
  for (int i = 0; i < 6; ++i) values[i] = first + (float)i;
  EXPECT_OK(stepstone_checkpoint_create(&checkpoint));
  EXPECT_OK(stepstone_checkpoint_add_array(checkpoint, item, "params/w", STEPSTONE_FLOAT32, 2,
                                           shape, values, 6 * sizeof(float)));
  return checkpoint;
}

/* To be called before this process has threads of a store, which a fork would not copy. */
static void another_process_writes(void) {
  int opened[2];
  int done[2];
  char byte = 0;
  int status = -1;
  stepstone_store* store = NULL;
  EXPECT(pipe(opened) == 0 && pipe(done) == 0);
  const pid_t child = fork();
  EXPECT(child >= 0);
  if (child == 0) {
    close(done[1]);
    EXPECT_OK(stepstone_open(path_of("shared"), NULL, &store));
    EXPECT(write(opened[1], &byte, 1) == 1);
    EXPECT(read(done[0], &byte, 1) == 0);
    EXPECT_OK(stepstone_close(store));
    stepstone_store_free(store);
    _exit(0);
  }
  close(opened[1]);
  EXPECT(read(opened[0], &byte, 1) == 1);
  EXPECT_CODE(STEPSTONE_BUSY, stepstone_open(path_of("shared"), NULL, &store));
  close(done[1]);
  EXPECT(waitpid(child, &status, 0) == child && status == 0);
  EXPECT_OK(stepstone_open(path_of("shared"), NULL, &store));
  stepstone_store_free(store);
  close(opened[0]);
  close(done[0]);
}

static void versions_and_names(void) {
  EXPECT(stepstone_c_version() == STEPSTONE_C_VERSION);
  EXPECT(strcmp(stepstone_code_name(STEPSTONE_OK), "ok") == 0);
  EXPECT(strcmp(stepstone_code_name(STEPSTONE_NOT_FOUND), "not_found") == 0);
  EXPECT(strcmp(stepstone_code_name(STEPSTONE_CLOSED), "closed") == 0);
  EXPECT(strcmp(stepstone_code_name(STEPSTONE_CLOSED + 1), "unknown") == 0);
  EXPECT(strcmp(stepstone_code_name(-1), "unknown") == 0);
}

static void paths(void) {
  const stepstone_path_component components[] = {{STEPSTONE_PATH_STRING_KEY, 0, "a/b", 3},
                                                 {STEPSTONE_PATH_INDEX, 2, NULL, 0},
                                                 {STEPSTONE_PATH_INTEGER_KEY, -7, NULL, 0},
                                                 {STEPSTONE_PATH_ATTRIBUTE, 0, "mu\0x", 4}};
  char text[64];
  size_t size = 0;
  EXPECT_OK(stepstone_path_text(components, 4, text, sizeof(text), &size));
  EXPECT(size == strlen(text) && strncmp(text, "a\\/b[2]/{-7}/.mu", 16) == 0);
  const size_t needed = size;
  EXPECT_CODE(STEPSTONE_LIMIT, stepstone_path_text(components, 4, text, needed, &size));
  EXPECT(size == needed);
  EXPECT_CODE(STEPSTONE_LIMIT, stepstone_path_text(components, 4, NULL, 0, &size));
  EXPECT_OK(stepstone_path_text(NULL, 0, text, sizeof(text), &size));
  EXPECT(size == 0 && text[0] == '\0');
  EXPECT_INVALID(stepstone_path_text(NULL, 4, text, sizeof(text), &size));
  EXPECT_INVALID(stepstone_path_text(components, 4, NULL, sizeof(text), &size));
  EXPECT_INVALID(stepstone_path_text(components, 4, text, sizeof(text), NULL));
  const stepstone_path_component negative = {STEPSTONE_PATH_INDEX, -1, NULL, 0};
  const stepstone_path_component unknown = {9, 0, NULL, 0};
  const stepstone_path_component no_name = {STEPSTONE_PATH_STRING_KEY, 0, NULL, 3};
  EXPECT_INVALID(stepstone_path_text(&negative, 1, text, sizeof(text), &size));
  EXPECT_INVALID(stepstone_path_text(&unknown, 1, text, sizeof(text), &size));
  EXPECT_INVALID(stepstone_path_text(&no_name, 1, text, sizeof(text), &size));
}

static void leaves_that_cannot_be_added(void) {
  float values[6];
  const uint64_t shape[] = {2, 3};
  uint64_t deep[40] = {0};
  stepstone_checkpoint* checkpoint = six_floats("state", values, 0);
  EXPECT_CODE(STEPSTONE_ALREADY_EXISTS,
              stepstone_checkpoint_add_int64(checkpoint, "state", "params/w", 1));
  EXPECT_TEXT("item 'state' leaf 'params/w'");
  EXPECT_INVALID(stepstone_checkpoint_add_int64(checkpoint, "state", "params", 1));
  EXPECT_INVALID(stepstone_checkpoint_add_int64(checkpoint, "state", "", 1));
  EXPECT_INVALID(stepstone_checkpoint_add_int64(checkpoint, "state", "params/w/x", 1));
  EXPECT_INVALID(stepstone_checkpoint_add_int64(checkpoint, "state", "a\\xg0", 1));
  EXPECT_INVALID(stepstone_checkpoint_add_array(checkpoint, "state", "b", STEPSTONE_FLOAT32, 2,
                                                shape, values, 23));
  EXPECT_INVALID(stepstone_checkpoint_add_array(checkpoint, "state", "b", 0, 2, shape, values, 24));
  EXPECT_INVALID(stepstone_checkpoint_add_array(checkpoint, "state", "b", 256 + STEPSTONE_FLOAT32,
                                                2, shape, values, 24));
  EXPECT_INVALID(stepstone_checkpoint_add_array(checkpoint, "state", "b", STEPSTONE_FLOAT32, 2,
                                                NULL, values, 24));
  EXPECT_INVALID(stepstone_checkpoint_add_array(checkpoint, "state", "b", STEPSTONE_FLOAT32, 2,
                                                shape, NULL, 24));
  EXPECT_CODE(STEPSTONE_LIMIT, stepstone_checkpoint_add_array(
                                   checkpoint, "state", "b", STEPSTONE_FLOAT32, 40, deep, NULL, 0));
  EXPECT_INVALID(stepstone_checkpoint_add_string(checkpoint, "state", "b", NULL));
  EXPECT_INVALID(stepstone_checkpoint_add_bytes(checkpoint, "state", "b", NULL, 1));
  EXPECT_INVALID(stepstone_checkpoint_add_none(NULL, "state", "b"));
  EXPECT_INVALID(stepstone_checkpoint_add_bool(checkpoint, NULL, "b", 1));
  EXPECT_INVALID(stepstone_checkpoint_add_float64(checkpoint, "state", NULL, 1));
  EXPECT_INVALID(stepstone_checkpoint_set_metrics(checkpoint, NULL));
  EXPECT_INVALID(stepstone_checkpoint_set_custom_metadata(NULL, "{}"));
  EXPECT_INVALID(stepstone_checkpoint_create(NULL));
  /* None of these was added. */
  EXPECT_OK(stepstone_checkpoint_add_none(checkpoint, "state", "b"));
  stepstone_checkpoint_free(checkpoint);
  stepstone_checkpoint_free(NULL);
}

static void everything_comes_back(void) {
  float values[6];
  float floats[6] = {0};
  float column[2] = {0};
  int64_t count = 0;
  double rate = 0;
  unsigned char flag = 9;
  char note[5] = {0};
  char blob[3] = {0};
  double wave[2] = {0, 0};
  const char* const big = "-123456789012345678901234567890";
  char digits[31] = {0};
  uint64_t number = 0;
  size_t leaf_count = 0;
  stepstone_store* store = open_store("all", synchronous());
  stepstone_checkpoint* checkpoint = six_floats("state", values, 1);
  EXPECT_OK(stepstone_checkpoint_add_int64(checkpoint, "state", "count", -5));
  EXPECT_OK(stepstone_checkpoint_add_float64(checkpoint, "state", "list[0]", 0.5));
  EXPECT_OK(stepstone_checkpoint_add_bool(checkpoint, "state", "list[1]", 1));
  EXPECT_OK(stepstone_checkpoint_add_none(checkpoint, "state", "by_id/{3}"));
  EXPECT_OK(stepstone_checkpoint_add_string(checkpoint, "state", "opt/.note", "hello"));
  EXPECT_OK(stepstone_checkpoint_add_bytes(checkpoint, "data", "", "a\0b", 3));
  EXPECT_OK(stepstone_checkpoint_add_bytes(checkpoint, "state", "empty", NULL, 0));
  EXPECT_OK(stepstone_checkpoint_add_complex128(checkpoint, "state", "wave", 0.25, -2));
  EXPECT_OK(stepstone_checkpoint_add_big_integer(checkpoint, "state", "big", big));
  EXPECT_OK(stepstone_checkpoint_set_metrics(checkpoint, "{\"loss\":0.5}"));
  EXPECT_OK(stepstone_checkpoint_set_custom_metadata(checkpoint, "{\"run\":\"c\"}"));
  EXPECT_OK(stepstone_save(store, 7, checkpoint, 0, NULL));
  stepstone_checkpoint_free(checkpoint);

  stepstone_step* step = NULL;
  EXPECT_OK(stepstone_step_open(store, STEPSTONE_LATEST, &step));
  EXPECT_OK(stepstone_step_number(step, &number));
  EXPECT_OK(stepstone_step_leaf_count(step, &leaf_count));
  EXPECT(number == 7 && leaf_count == 10);
  stepstone_leaf_info info;
  info.struct_size_bytes = sizeof(info);
  EXPECT_OK(stepstone_step_find(step, "state", "params/w", &info));
  EXPECT(info.kind == STEPSTONE_KIND_ARRAY && info.dtype == STEPSTONE_FLOAT32);
  EXPECT(info.rank == 2 && info.shape[0] == 2 && info.shape[1] == 3 && info.size_bytes == 24);
  EXPECT(strcmp(info.item, "state") == 0 && strcmp(info.path, "params/w") == 0);
  EXPECT_OK(stepstone_step_leaf(step, 0, &info));
  EXPECT(strcmp(info.item, "data") == 0 && info.path[0] == '\0');
  EXPECT(info.kind == STEPSTONE_KIND_BYTES && info.dtype == 0 && info.size_bytes == 3);
  for (size_t i = 0; i < leaf_count; ++i) EXPECT_OK(stepstone_step_leaf(step, i, &info));
  EXPECT_CODE(STEPSTONE_NOT_FOUND, stepstone_step_leaf(step, leaf_count, &info));
  info.struct_size_bytes = 1;
  EXPECT_INVALID(stepstone_step_leaf(step, 0, &info));

  stepstone_destination all[] = {
      {"state", "params/w", floats, sizeof(floats), NULL, 0},
      {"state", "count", &count, sizeof(count), NULL, 0},
      {"state", "list[0]", &rate, sizeof(rate), NULL, 0},
      {"state", "list[1]", &flag, 1, NULL, 0},
      {"state", "by_id/{3}", NULL, 0, NULL, 0},
      {"state", "opt/.note", note, sizeof(note), NULL, 0},
      {"state", "empty", NULL, 0, NULL, 0},
      {"data", "", blob, sizeof(blob), NULL, 0},
      {"state", "wave", wave, sizeof(wave), NULL, 0},
      {"state", "big", digits, sizeof(digits), NULL, 0},
  };
  const size_t all_count = sizeof(all) / sizeof(all[0]);
  EXPECT_OK(stepstone_restore(step, all, all_count));
  EXPECT(equal_floats(floats, values, 6));
  EXPECT(count == -5 && rate == 0.5 && flag == 1);
  EXPECT(memcmp(note, "hello", 5) == 0 && memcmp(blob, "a\0b", 3) == 0);
  EXPECT(wave[0] == 0.25 && wave[1] == -2 && memcmp(digits, big, strlen(big)) == 0);
  info.struct_size_bytes = sizeof(info);
  EXPECT_OK(stepstone_step_find(step, "state", "wave", &info));
  EXPECT(info.kind == STEPSTONE_KIND_COMPLEX128 && info.size_bytes == 16);
  EXPECT_OK(stepstone_step_find(step, "state", "big", &info));
  EXPECT(info.kind == STEPSTONE_KIND_BIG_INTEGER && info.size_bytes == strlen(big));
  EXPECT_OK(stepstone_restore(step, NULL, 0));

  const stepstone_slice slices[] = {{0, 2}, {1, 2}};
  stepstone_destination part = {"state", "params/w", column, sizeof(column), slices, 2};
  EXPECT_OK(stepstone_restore(step, &part, 1));
  EXPECT(column[0] == 2 && column[1] == 5);

  /* What does not fit is found before anything is written. */
  memset(floats, 0, sizeof(floats));
  all[1].size_bytes = 4;
  EXPECT_INVALID(stepstone_restore(step, all, all_count));
  EXPECT_TEXT("step 7 item 'state' leaf 'count'");
  EXPECT(floats[0] == 0);
  EXPECT_INVALID(stepstone_restore_leaf(step, "state", "params/w", floats, 20));
  EXPECT_INVALID(stepstone_restore_leaf(step, "state", "params/w", NULL, 0));
  EXPECT_INVALID(stepstone_restore_leaf(step, "state", "params/w", NULL, 24));
  EXPECT_INVALID(stepstone_restore_leaf(step, NULL, "params/w", floats, 24));
  EXPECT_INVALID(stepstone_restore_leaf(step, "state", NULL, floats, 24));
  EXPECT_INVALID(stepstone_restore_leaf(NULL, "state", "params/w", floats, 24));
  EXPECT_INVALID(stepstone_restore(step, NULL, 1));
  EXPECT_CODE(STEPSTONE_NOT_FOUND, stepstone_restore_leaf(step, "state", "params", floats, 24));
  EXPECT_CODE(STEPSTONE_NOT_FOUND, stepstone_restore_leaf(step, "none", "params/w", floats, 24));
  const stepstone_destination twice[] = {part, part};
  EXPECT_INVALID(stepstone_restore(step, twice, 2));
  const stepstone_slice beyond = {1, 3};
  const stepstone_slice backwards = {2, 1};
  part.slice_count = 1;
  part.slices = &beyond;
  EXPECT_INVALID(stepstone_restore(step, &part, 1));
  part.slices = &backwards;
  EXPECT_INVALID(stepstone_restore(step, &part, 1));
  part.slices = NULL;
  EXPECT_INVALID(stepstone_restore(step, &part, 1));
  const stepstone_destination sliced_value = {"state", "count", &count, 8, slices, 1};
  EXPECT_INVALID(stepstone_restore(step, &sliced_value, 1));
  EXPECT_INVALID(stepstone_step_number(step, NULL));
  EXPECT_INVALID(stepstone_step_leaf_count(NULL, &leaf_count));
  EXPECT_INVALID(stepstone_step_leaf(step, 0, NULL));
  EXPECT_INVALID(stepstone_step_find(step, NULL, "count", &info));

  char* json = NULL;
  EXPECT_OK(stepstone_metrics(store, 7, &json));
  EXPECT(strcmp(json, "{\"loss\":0.5}") == 0);
  stepstone_text_free(json);
  EXPECT_OK(stepstone_custom_metadata(store, STEPSTONE_LATEST, &json));
  EXPECT(strcmp(json, "{\"run\":\"c\"}") == 0);
  stepstone_text_free(json);
  EXPECT_OK(stepstone_metadata(store, 7, &json));
  EXPECT(strstr(json, "\"step\":7") != NULL && strstr(json, "\"shape\":[2,3]") != NULL);
  EXPECT(strstr(json, "\"dtype\":\"float32\"") != NULL && strstr(json, "{\"loss\":0.5}") != NULL);
  stepstone_text_free(json);
  stepstone_text_free(NULL);
  EXPECT_INVALID(stepstone_metadata(store, 7, NULL));
  EXPECT_INVALID(stepstone_metrics(NULL, 7, &json));
  EXPECT_CODE(STEPSTONE_NOT_FOUND, stepstone_custom_metadata(store, 8, &json));

  /* A step that is open outlives its retirement, and the store too. */
  EXPECT_OK(stepstone_retire(store, 7));
  EXPECT_OK(stepstone_close(store));
  stepstone_store_free(store);
  EXPECT_OK(stepstone_restore_leaf(step, "state", "params/w", floats, 24));
  EXPECT(equal_floats(floats, values, 6));
  stepstone_step_free(step);
  stepstone_step_free(NULL);
}

static void steps_of_a_run(void) {
  float values[6];
  uint64_t steps[2] = {0, 0};
  uint64_t latest = 99;
  size_t count = 0;
  int32_t saved = 9;
  int32_t is_saving = 9;
  char* json = NULL;
  stepstone_step* step = NULL;
  stepstone_options options = STEPSTONE_OPTIONS_INIT;
  options.save_interval_steps = 2;
  options.max_to_keep = 2;
  stepstone_store* store = open_store("run", options);
  EXPECT_CODE(STEPSTONE_NOT_FOUND, stepstone_latest_step(store, &latest));
  EXPECT_CODE(STEPSTONE_NOT_FOUND, stepstone_step_open(store, STEPSTONE_LATEST, &step));
  EXPECT(latest == 99 && step == NULL);
  for (uint64_t number = 0; number < 6; ++number) {
    stepstone_checkpoint* checkpoint = six_floats(STEPSTONE_DEFAULT_ITEM, values, (float)number);
    EXPECT_OK(stepstone_save(store, number, checkpoint, 0, &saved));
    EXPECT(saved == (number % 2 == 0));
    stepstone_checkpoint_free(checkpoint);
    memset(values, 0, sizeof(values)); /* Arrays have been copied. */
  }
  EXPECT_OK(stepstone_wait(store));
  EXPECT_OK(stepstone_check(store));
  EXPECT_OK(stepstone_is_saving(store, &is_saving));
  EXPECT(is_saving == 0);
  EXPECT_OK(stepstone_steps(store, steps, 2, &count));
  EXPECT(count == 2 && steps[0] == 2 && steps[1] == 4);
  EXPECT_OK(stepstone_steps(store, NULL, 0, &count));
  steps[1] = 0;
  EXPECT_OK(stepstone_steps(store, steps, 1, &count));
  EXPECT(count == 2 && steps[1] == 0);
  EXPECT_OK(stepstone_latest_step(store, &latest));
  EXPECT(latest == 4);

  stepstone_checkpoint* again = six_floats(STEPSTONE_DEFAULT_ITEM, values, 50);
  EXPECT_CODE(STEPSTONE_ALREADY_EXISTS,
              stepstone_save(store, 4, again, STEPSTONE_SAVE_FORCE, NULL));
  EXPECT_OK(stepstone_save(store, 4, again, STEPSTONE_SAVE_FORCE | STEPSTONE_SAVE_OVERWRITE, NULL));
  EXPECT_OK(stepstone_step_open(store, 4, &step));
  EXPECT_OK(stepstone_restore_leaf(step, STEPSTONE_DEFAULT_ITEM, "params/w", values, 24));
  EXPECT(values[5] == 55);
  stepstone_step_free(step);
  EXPECT_OK(stepstone_metrics(store, 4, &json));
  EXPECT(strcmp(json, "null") == 0);
  stepstone_text_free(json);

  /* Bad calls change nothing. */
  stepstone_checkpoint* empty = NULL;
  stepstone_checkpoint* bad_json = six_floats(STEPSTONE_DEFAULT_ITEM, values, 0);
  stepstone_checkpoint* gap = NULL;
  stepstone_checkpoint* other_kind = six_floats("state", values, 0);
  EXPECT_OK(stepstone_checkpoint_create(&empty));
  EXPECT_OK(stepstone_checkpoint_create(&gap));
  EXPECT_OK(stepstone_checkpoint_add_int64(gap, STEPSTONE_DEFAULT_ITEM, "list[1]", 1));
  EXPECT_OK(stepstone_checkpoint_set_metrics(bad_json, "{"));
  EXPECT_INVALID(stepstone_save(store, 6, empty, 0, NULL));
  EXPECT_INVALID(stepstone_save(store, 6, gap, 0, NULL));
  EXPECT_INVALID(stepstone_save(store, 6, bad_json, 0, NULL));
  EXPECT_INVALID(stepstone_save(store, 6, other_kind, 0, NULL));
  EXPECT_INVALID(stepstone_save(store, 6, again, 4, NULL));
  EXPECT_INVALID(stepstone_save(store, 6, NULL, 0, NULL));
  EXPECT_INVALID(stepstone_save(NULL, 6, again, 0, NULL));
  EXPECT(stepstone_save(store, UINT64_MAX, again, STEPSTONE_SAVE_FORCE, NULL) != STEPSTONE_OK);
  EXPECT_OK(stepstone_steps(store, steps, 2, &count));
  EXPECT(count == 2 && steps[0] == 2 && steps[1] == 4);
  stepstone_checkpoint_free(empty);
  stepstone_checkpoint_free(bad_json);
  stepstone_checkpoint_free(gap);
  stepstone_checkpoint_free(other_kind);

  EXPECT_INVALID(stepstone_wait(NULL));
  EXPECT_INVALID(stepstone_check(NULL));
  EXPECT_INVALID(stepstone_is_saving(store, NULL));
  EXPECT_INVALID(stepstone_steps(store, NULL, 1, &count));
  EXPECT_INVALID(stepstone_steps(store, steps, 2, NULL));
  EXPECT_INVALID(stepstone_latest_step(store, NULL));
  EXPECT_INVALID(stepstone_reload(NULL));
  EXPECT_INVALID(stepstone_retire(NULL, 2));
  EXPECT_INVALID(stepstone_step_open(store, 4, NULL));
  EXPECT_CODE(STEPSTONE_NOT_FOUND, stepstone_retire(store, 3));

  /* A reader sees what is committed, and never writes. */
  stepstone_options reading = STEPSTONE_OPTIONS_INIT;
  reading.read_only = 1;
  stepstone_store* reader = open_store("run", reading);
  EXPECT_CODE(STEPSTONE_READ_ONLY, stepstone_save(reader, 8, again, STEPSTONE_SAVE_FORCE, NULL));
  EXPECT_CODE(STEPSTONE_READ_ONLY, stepstone_retire(reader, 2));
  EXPECT_OK(stepstone_save(store, 6, again, 0, NULL));
  EXPECT_OK(stepstone_wait(store));
  EXPECT_OK(stepstone_reload(reader));
  EXPECT_OK(stepstone_latest_step(reader, &latest));
  EXPECT(latest == 6);
  stepstone_store_free(reader);

  EXPECT_OK(stepstone_close(store));
  EXPECT_OK(stepstone_close(store));
  EXPECT_CODE(STEPSTONE_CLOSED, stepstone_save(store, 8, again, 0, NULL));
  EXPECT_CODE(STEPSTONE_CLOSED, stepstone_step_open(store, 6, &step));
  EXPECT_CODE(STEPSTONE_CLOSED, stepstone_reload(store));
  stepstone_store_free(store);
  stepstone_checkpoint_free(again);
}

/* What describes a leaf stays where it is, however and in whatever order it was found. */
static void few_leaves_of_many_are_found_and_restored(void) {
  enum { kCount = 2000 };
  static double values[kCount];
  static double found[kCount];
  static stepstone_destination all[kCount];
  static char leaf_paths[kCount][16];
  stepstone_store* store = open_store("many", synchronous());
  stepstone_checkpoint* checkpoint = NULL;
  EXPECT_OK(stepstone_checkpoint_create(&checkpoint));
  for (int i = 0; i < kCount; ++i) {
    values[i] = i;
    snprintf(leaf_paths[i], sizeof(leaf_paths[i]), "a[%d]/x", i);
    EXPECT_OK(stepstone_checkpoint_add_array(checkpoint, "state", leaf_paths[i], STEPSTONE_FLOAT64,
                                             0, NULL, &values[i], sizeof(double)));
  }
  EXPECT_OK(stepstone_checkpoint_add_int64(checkpoint, "state", "n", 5));
  EXPECT_OK(stepstone_save(store, 1, checkpoint, 0, NULL));
  stepstone_checkpoint_free(checkpoint);
  stepstone_step* step = NULL;
  EXPECT_OK(stepstone_step_open(store, 1, &step));
  stepstone_leaf_info first;
  stepstone_leaf_info again;
  first.struct_size_bytes = again.struct_size_bytes = sizeof(first);
  EXPECT_OK(stepstone_step_find(step, "state", "a[7]/x", &first));
  int64_t n = 0;
  double x = 0;
  EXPECT_OK(stepstone_restore_leaf(step, "state", "n", &n, sizeof(n)));
  EXPECT_OK(stepstone_restore_leaf(step, "state", "a[1234]/x", &x, sizeof(x)));
  EXPECT(n == 5 && x == 1234);
  EXPECT_CODE(STEPSTONE_NOT_FOUND, stepstone_step_find(step, "state", "a[2000]/x", &again));
  EXPECT_TEXT("step 1 item 'state' leaf 'a[2000]/x'");
  EXPECT_CODE(STEPSTONE_NOT_FOUND, stepstone_step_find(step, "other", "n", &again));
  size_t count = 0;
  EXPECT_OK(stepstone_step_leaf_count(step, &count));
  EXPECT(count == kCount + 1);
  EXPECT_OK(stepstone_step_leaf(step, 7, &again));
  EXPECT(again.path == first.path && strcmp(first.path, "a[7]/x") == 0);
  for (int i = 0; i < kCount; ++i) {
    const stepstone_destination to = {"state", leaf_paths[i], &found[i], sizeof(double), NULL, 0};
    all[i] = to;
  }
  EXPECT_OK(stepstone_restore(step, all, kCount));
  for (int i = 0; i < kCount; ++i) EXPECT(found[i] == values[i]);
  stepstone_step_free(step);
  stepstone_store_free(store);
}

static void stores_that_cannot_be_opened(void) {
  stepstone_store* store = NULL;
  stepstone_options options = STEPSTONE_OPTIONS_INIT;
  EXPECT_INVALID(stepstone_open(NULL, NULL, &store));
  EXPECT_INVALID(stepstone_open(path_of("absent"), NULL, NULL));
  options.create = 0;
  EXPECT_CODE(STEPSTONE_NOT_FOUND, stepstone_open(path_of("absent"), &options, &store));
  options.save_interval_steps = 0;
  EXPECT_INVALID(stepstone_open(path_of("absent"), &options, &store));
  options.struct_size_bytes = sizeof(options) + 8;
  EXPECT_CODE(STEPSTONE_UNSUPPORTED, stepstone_open(path_of("absent"), &options, &store));
  options.struct_size_bytes = 8;
  EXPECT_INVALID(stepstone_open(path_of("absent"), &options, &store));
  EXPECT(store == NULL && access(path_of("absent"), F_OK) != 0);
  EXPECT_INVALID(stepstone_close(NULL));
  stepstone_store_free(NULL);
  EXPECT_OK(stepstone_open(path_of("by_default"), NULL, &store));
  EXPECT(stepstone_error_text()[0] == '\0');
  stepstone_store_free(store);
}

static void exports(void) {
  float values[6];
  uint64_t number = 9;
  size_t count = 0;
  char* json = NULL;
  stepstone_step* step = NULL;
  stepstone_store* store = open_store("source", synchronous());
  stepstone_checkpoint* checkpoint = six_floats("state", values, 3);
  EXPECT_OK(stepstone_checkpoint_add_string(checkpoint, "notes", "text", "hello"));
  EXPECT_OK(stepstone_checkpoint_set_custom_metadata(checkpoint, "{\"run\":1}"));
  EXPECT_OK(stepstone_save(store, 40, checkpoint, 0, NULL));
  EXPECT_OK(stepstone_export(store, 40, path_of("exported"), 0));
  EXPECT_CODE(STEPSTONE_ALREADY_EXISTS, stepstone_export(store, 40, path_of("exported"), 0));
  EXPECT_OK(stepstone_export(store, STEPSTONE_LATEST, path_of("exported"), 1));
  EXPECT_INVALID(stepstone_export(store, 40, path_of("source/inside"), 0));
  EXPECT_INVALID(stepstone_export(store, 40, NULL, 0));
  EXPECT_INVALID(stepstone_export(NULL, 40, path_of("other"), 0));
  EXPECT_CODE(STEPSTONE_NOT_FOUND, stepstone_export(store, 41, path_of("other"), 0));
  EXPECT(access(path_of("other"), F_OK) != 0);
  stepstone_checkpoint_free(checkpoint);
  stepstone_store_free(store);

  stepstone_options reading = STEPSTONE_OPTIONS_INIT;
  reading.read_only = 1;
  stepstone_store* exported = open_store("exported", reading);
  EXPECT_OK(stepstone_step_open(exported, STEPSTONE_LATEST, &step));
  EXPECT_OK(stepstone_step_number(step, &number));
  EXPECT_OK(stepstone_step_leaf_count(step, &count));
  EXPECT(number == 0 && count == 2);
  float found[6];
  EXPECT_OK(stepstone_restore_leaf(step, "state", "params/w", found, sizeof(found)));
  EXPECT(equal_floats(found, values, 6));
  EXPECT_OK(stepstone_custom_metadata(exported, 0, &json));
  EXPECT(strcmp(json, "{\"run\":1}") == 0);
  stepstone_text_free(json);
  stepstone_step_free(step);
  stepstone_store_free(exported);
}

/* An array of a megabyte that neither shrinks nor repeats. */
static stepstone_checkpoint* megabyte(unsigned char* bytes) {
  const uint64_t shape = 1 << 20;
  uint64_t state = 12345;
  stepstone_checkpoint* checkpoint = NULL;
  for (size_t i = 0; i < shape; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    bytes[i] = (unsigned char)(state >> 56);
  }
  EXPECT_OK(stepstone_checkpoint_create(&checkpoint));
  EXPECT_OK(stepstone_checkpoint_add_array(checkpoint, "state", "w", STEPSTONE_UINT8, 1, &shape,
                                           bytes, 1 << 20));
  return checkpoint;
}

static void flip_a_byte_of_every_segment(const char* name) {
  char store[256];
  char file[600];
  snprintf(store, sizeof(store), "%s", path_of(name));
  DIR* entries = opendir(store);
  EXPECT(entries != NULL);
  int flipped = 0;
  for (struct dirent* entry = readdir(entries); entry != NULL; entry = readdir(entries)) {
    if (strstr(entry->d_name, ".sst") == NULL) continue;
    snprintf(file, sizeof(file), "%s/%s", store, entry->d_name);
    FILE* segment = fopen(file, "r+b");
    EXPECT(segment != NULL && fseek(segment, 300000, SEEK_SET) == 0);
    const int byte = fgetc(segment);
    if (byte != EOF && fseek(segment, 300000, SEEK_SET) == 0)
      flipped += fputc(byte ^ 1, segment) != EOF;
    EXPECT(fclose(segment) == 0);
  }
  closedir(entries);
  EXPECT(flipped > 0);
}

static void damage_is_found(void) {
  static unsigned char bytes[1 << 20];
  stepstone_store* store = open_store("damaged", synchronous());
  stepstone_checkpoint* checkpoint = megabyte(bytes);
  EXPECT_OK(stepstone_save(store, 1, checkpoint, 0, NULL));
  stepstone_checkpoint_free(checkpoint);
  stepstone_store_free(store);
  store = open_store("damaged", synchronous());
  stepstone_step* whole = NULL;
  static unsigned char found[1 << 20];
  EXPECT_OK(stepstone_step_open(store, 1, &whole));
  EXPECT_OK(stepstone_restore_leaf(whole, "state", "w", found, sizeof(found)));
  EXPECT(memcmp(found, bytes, sizeof(bytes)) == 0);
  const stepstone_slice middle = {300000, 500000};
  const stepstone_destination part = {"state", "w", found, 200000, &middle, 1};
  EXPECT_OK(stepstone_restore(whole, &part, 1));
  EXPECT(memcmp(found, bytes + 300000, 200000) == 0);
  stepstone_step_free(whole);
  stepstone_store_free(store);
  flip_a_byte_of_every_segment("damaged");
  store = open_store("damaged", synchronous());
  stepstone_step* step = NULL;
  EXPECT_OK(stepstone_step_open(store, 1, &step));
  EXPECT_CODE(STEPSTONE_CORRUPT, stepstone_restore_leaf(step, "state", "w", bytes, sizeof(bytes)));
  EXPECT_TEXT("step 1");
  stepstone_step_free(step);
  stepstone_store_free(store);
}

/* A limit on the size of files is, to a store, a full disk. */
static void an_error_in_the_background_is_told_once(void) {
  static unsigned char bytes[1 << 20];
  struct rlimit usual;
  size_t count = 9;
  stepstone_store* store = open_store("full", (stepstone_options)STEPSTONE_OPTIONS_INIT);
  stepstone_checkpoint* checkpoint = megabyte(bytes);
  signal(SIGXFSZ, SIG_IGN);
  EXPECT(getrlimit(RLIMIT_FSIZE, &usual) == 0);
  struct rlimit full = usual;
  full.rlim_cur = 100000;
  EXPECT(setrlimit(RLIMIT_FSIZE, &full) == 0);
  const stepstone_code begun = stepstone_save(store, 1, checkpoint, 0, NULL);
  const stepstone_code ended = stepstone_wait(store);
  char text[256];
  snprintf(text, sizeof(text), "%s", stepstone_error_text());
  EXPECT(setrlimit(RLIMIT_FSIZE, &usual) == 0);
  EXPECT(begun == STEPSTONE_OK);
  EXPECT(ended == STEPSTONE_NO_SPACE || ended == STEPSTONE_IO);
  EXPECT(strstr(text, "step 1") != NULL);
  EXPECT_OK(stepstone_check(store));
  EXPECT_OK(stepstone_wait(store));
  EXPECT_OK(stepstone_steps(store, NULL, 0, &count));
  EXPECT(count == 0);
  stepstone_checkpoint_free(checkpoint);
  stepstone_store_free(store);
}

static int remove_one(const char* path, const struct stat* status, int type, struct FTW* where) {
  (void)status;
  (void)type;
  (void)where;
  return remove(path);
}

int main(void) {
  EXPECT(mkdtemp(directory) != NULL);
  another_process_writes();
  versions_and_names();
  paths();
  leaves_that_cannot_be_added();
  stores_that_cannot_be_opened();
  everything_comes_back();
  few_leaves_of_many_are_found_and_restored();
  steps_of_a_run();
  exports();
  damage_is_found();
  an_error_in_the_background_is_told_once();
  EXPECT(nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0);
  puts("passed");
  return 0;
}

/* NOLINTEND(clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling) */
