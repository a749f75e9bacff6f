/* Goal: no NULL that a program in C hands over ends it. Method: every function of the header, in
 * its order, with NULL for each pointer in turn, also for those inside of structs; each gives
 * STEPSTONE_INVALID_ARGUMENT and a text that names the argument, or is allowed. */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/c/stepstone.h"

#define EXPECT(condition)                                                                       \
  do {                                                                                          \
    if (!(condition)) {                                                                         \
      fprintf(stderr, "%s:%d: expected %s; last error: '%s'\n", __FILE__, __LINE__, #condition, \
              stepstone_error_text());                                                          \
      exit(1);                                                                                  \
    }                                                                                           \
  } while (0)
#define EXPECT_OK(call) EXPECT((call) == STEPSTONE_OK)
#define EXPECT_NULL(name, call)                                           \
  do {                                                                    \
    EXPECT((call) == STEPSTONE_INVALID_ARGUMENT);                         \
    EXPECT(strstr(stepstone_error_text(), "'" name "' is NULL") != NULL); \
  } while (0)

static void in_paths_and_stores(const char* directory) {
  const stepstone_path_component unnamed = {STEPSTONE_PATH_STRING_KEY, 0, NULL, 1};
  char text[16];
  size_t size = 0;
  stepstone_store* store = NULL;
  EXPECT_NULL("components", stepstone_path_text(NULL, 1, text, sizeof(text), &size));
  EXPECT_NULL("name", stepstone_path_text(&unnamed, 1, text, sizeof(text), &size));
  EXPECT_NULL("text", stepstone_path_text(NULL, 0, NULL, 1, &size));
  EXPECT_NULL("size_bytes", stepstone_path_text(NULL, 0, text, sizeof(text), NULL));
  EXPECT_NULL("directory", stepstone_open(NULL, NULL, &store));
  EXPECT_NULL("store", stepstone_open(directory, NULL, NULL));
  EXPECT(store == NULL);
  EXPECT_NULL("store", stepstone_close(NULL));
  stepstone_store_free(NULL);
}

static void in_what_is_to_be_saved(stepstone_checkpoint* checkpoint) {
  const uint64_t shape[] = {1};
  const char byte = 1;
  EXPECT_NULL("checkpoint", stepstone_checkpoint_create(NULL));
  stepstone_checkpoint_free(NULL);
  /* Of a function that adds a leaf, with `...` behind the path. */
#define EXPECT_ADDS_NOTHING(function, ...)                                   \
  do {                                                                       \
    EXPECT_NULL("checkpoint", function(NULL, "state", "leaf", __VA_ARGS__)); \
    EXPECT_NULL("item", function(checkpoint, NULL, "leaf", __VA_ARGS__));    \
    EXPECT_NULL("path", function(checkpoint, "state", NULL, __VA_ARGS__));   \
  } while (0)
  EXPECT_ADDS_NOTHING(stepstone_checkpoint_add_array, STEPSTONE_INT8, 1, shape, &byte, 1);
  EXPECT_NULL("shape", stepstone_checkpoint_add_array(checkpoint, "state", "leaf", STEPSTONE_INT8,
                                                      1, NULL, &byte, 1));
  EXPECT_NULL("data", stepstone_checkpoint_add_array(checkpoint, "state", "leaf", STEPSTONE_INT8, 1,
                                                     shape, NULL, 1));
  EXPECT_NULL("checkpoint", stepstone_checkpoint_add_none(NULL, "state", "leaf"));
  EXPECT_NULL("item", stepstone_checkpoint_add_none(checkpoint, NULL, "leaf"));
  EXPECT_NULL("path", stepstone_checkpoint_add_none(checkpoint, "state", NULL));
  EXPECT_ADDS_NOTHING(stepstone_checkpoint_add_bool, 1);
  EXPECT_ADDS_NOTHING(stepstone_checkpoint_add_int64, 1);
  EXPECT_ADDS_NOTHING(stepstone_checkpoint_add_float64, 1);
  EXPECT_ADDS_NOTHING(stepstone_checkpoint_add_complex128, 1, 1);
  EXPECT_ADDS_NOTHING(stepstone_checkpoint_add_big_integer, "1");
  EXPECT_NULL("decimal", stepstone_checkpoint_add_big_integer(checkpoint, "state", "leaf", NULL));
  EXPECT_ADDS_NOTHING(stepstone_checkpoint_add_string, "text");
  EXPECT_NULL("text", stepstone_checkpoint_add_string(checkpoint, "state", "leaf", NULL));
  EXPECT_ADDS_NOTHING(stepstone_checkpoint_add_bytes, &byte, 1);
  EXPECT_NULL("bytes", stepstone_checkpoint_add_bytes(checkpoint, "state", "leaf", NULL, 1));
  EXPECT_NULL("checkpoint", stepstone_checkpoint_set_metrics(NULL, "{}"));
  EXPECT_NULL("json", stepstone_checkpoint_set_metrics(checkpoint, NULL));
  EXPECT_NULL("checkpoint", stepstone_checkpoint_set_custom_metadata(NULL, "{}"));
  EXPECT_NULL("json", stepstone_checkpoint_set_custom_metadata(checkpoint, NULL));
  /* None of these has added anything. */
  EXPECT_OK(stepstone_checkpoint_add_array(checkpoint, "state", "leaf", STEPSTONE_INT8, 1, shape,
                                           "\7", 1));
}

static void in_saves_and_steps(stepstone_store* store, const stepstone_checkpoint* checkpoint) {
  int32_t number = 0;
  uint64_t step = 0;
  size_t count = 0;
  char* json = NULL;
  EXPECT_NULL("store", stepstone_save(NULL, 1, checkpoint, 0, &number));
  EXPECT_NULL("checkpoint", stepstone_save(store, 1, NULL, 0, &number));
  EXPECT_OK(stepstone_save(store, 1, checkpoint, 0, NULL));
  EXPECT_NULL("store", stepstone_wait(NULL));
  EXPECT_NULL("store", stepstone_check(NULL));
  EXPECT_NULL("store", stepstone_is_saving(NULL, &number));
  EXPECT_NULL("is_saving", stepstone_is_saving(store, NULL));
  EXPECT_OK(stepstone_wait(store));
  EXPECT_NULL("store", stepstone_steps(NULL, &step, 1, &count));
  EXPECT_NULL("steps", stepstone_steps(store, NULL, 1, &count));
  EXPECT_NULL("count", stepstone_steps(store, &step, 1, NULL));
  EXPECT_NULL("store", stepstone_latest_step(NULL, &step));
  EXPECT_NULL("step", stepstone_latest_step(store, NULL));
  EXPECT_NULL("store", stepstone_reload(NULL));
  EXPECT_NULL("store", stepstone_retire(NULL, 1));
  EXPECT_NULL("store", stepstone_metadata(NULL, 1, &json));
  EXPECT_NULL("json", stepstone_metadata(store, 1, NULL));
  EXPECT_NULL("store", stepstone_metrics(NULL, 1, &json));
  EXPECT_NULL("json", stepstone_metrics(store, 1, NULL));
  EXPECT_NULL("store", stepstone_custom_metadata(NULL, 1, &json));
  EXPECT_NULL("json", stepstone_custom_metadata(store, 1, NULL));
  stepstone_text_free(NULL);
  EXPECT_NULL("store", stepstone_export(NULL, 1, "nowhere", 0));
  EXPECT_NULL("path", stepstone_export(store, 1, NULL, 0));
  EXPECT(json == NULL && step == 0 && count == 0);
  EXPECT_OK(stepstone_latest_step(store, &step));
  EXPECT(step == 1);
}

static void in_reading(stepstone_store* store) {
  stepstone_step* step = NULL;
  uint64_t number = 0;
  size_t count = 0;
  char byte = 0;
  stepstone_leaf_info info;
  info.struct_size_bytes = sizeof(info);
  EXPECT_NULL("store", stepstone_step_open(NULL, 1, &step));
  EXPECT_NULL("step", stepstone_step_open(store, 1, NULL));
  EXPECT_OK(stepstone_step_open(store, 1, &step));
  EXPECT_NULL("step", stepstone_step_number(NULL, &number));
  EXPECT_NULL("number", stepstone_step_number(step, NULL));
  EXPECT_NULL("step", stepstone_step_leaf_count(NULL, &count));
  EXPECT_NULL("count", stepstone_step_leaf_count(step, NULL));
  EXPECT_NULL("step", stepstone_step_leaf(NULL, 0, &info));
  EXPECT_NULL("info", stepstone_step_leaf(step, 0, NULL));
  EXPECT_NULL("step", stepstone_step_find(NULL, "state", "leaf", &info));
  EXPECT_NULL("item", stepstone_step_find(step, NULL, "leaf", &info));
  EXPECT_NULL("path", stepstone_step_find(step, "state", NULL, &info));
  EXPECT_NULL("info", stepstone_step_find(step, "state", "leaf", NULL));
  const stepstone_destination no_item = {NULL, "leaf", &byte, 1, NULL, 0};
  const stepstone_destination no_path = {"state", NULL, &byte, 1, NULL, 0};
  const stepstone_destination no_data = {"state", "leaf", NULL, 1, NULL, 0};
  const stepstone_destination no_slices = {"state", "leaf", &byte, 1, NULL, 1};
  EXPECT_NULL("step", stepstone_restore(NULL, &no_item, 1));
  EXPECT_NULL("destinations", stepstone_restore(step, NULL, 1));
  EXPECT_NULL("item", stepstone_restore(step, &no_item, 1));
  EXPECT_NULL("path", stepstone_restore(step, &no_path, 1));
  EXPECT_NULL("data", stepstone_restore(step, &no_data, 1));
  EXPECT_NULL("slices", stepstone_restore(step, &no_slices, 1));
  EXPECT_NULL("step", stepstone_restore_leaf(NULL, "state", "leaf", &byte, 1));
  EXPECT_NULL("item", stepstone_restore_leaf(step, NULL, "leaf", &byte, 1));
  EXPECT_NULL("path", stepstone_restore_leaf(step, "state", NULL, &byte, 1));
  EXPECT_NULL("data", stepstone_restore_leaf(step, "state", "leaf", NULL, 1));
  EXPECT(byte == 0 && number == 0 && count == 0);
  EXPECT_OK(stepstone_restore_leaf(step, "state", "leaf", &byte, 1));
  EXPECT(byte == 7);
  stepstone_step_free(NULL);
  stepstone_step_free(step);
}

static int remove_one(const char* path, const struct stat* status, int type, struct FTW* where) {
  (void)status;
  (void)type;
  (void)where;
  return remove(path);
}

int main(void) {
  char directory[] = "/tmp/stepstone_c_null_XXXXXX";
  stepstone_store* store = NULL;
  stepstone_checkpoint* checkpoint = NULL;
  EXPECT(mkdtemp(directory) != NULL);
  in_paths_and_stores(directory);
  EXPECT_OK(stepstone_open(directory, NULL, &store));
  EXPECT_OK(stepstone_checkpoint_create(&checkpoint));
  in_what_is_to_be_saved(checkpoint);
  in_saves_and_steps(store, checkpoint);
  in_reading(store);
  stepstone_checkpoint_free(checkpoint);
  stepstone_store_free(store);
  EXPECT(nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0);
  puts("passed");
  return 0;
}
