/* Prints what is in a portable file, or one leaf of its newest step, with nothing of Stepstone but
 * the library of format/:
 *
 *   print_leaf FILE              one line for each leaf: item, path, type, shape
 *   print_leaf FILE ITEM PATH    that line, and the leaf's values, one a line */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <stepstone/format/portable_c.h>

static int failed(void) {
  fprintf(stderr, "print_leaf: %s\n", stepstone_portable_error_text());
  return 1;
}

/* One line about a leaf. Sets *status, an int, to 1 and ends a listing if that fails. */
static int print_line(void* status, const stepstone_portable_leaf* leaf) {
  stepstone_portable_leaf_info info = {sizeof(info)};
  if (stepstone_portable_leaf_describe(leaf, &info) != STEPSTONE_PORTABLE_OK) {
    return *(int*)status = failed();
  }
  printf("%s %s %s", info.item, info.path,
         info.dtype == 0 ? stepstone_portable_kind_name(info.kind)
                         : stepstone_portable_dtype_name(info.dtype));
  for (size_t axis = 0; axis < info.rank; ++axis) {
    printf("%s%" PRIu64, axis == 0 ? " " : "x", info.shape[axis]);
  }
  printf("\n");
  return 0;
}

/* The values that this program has a format for; of others their bytes. */
static void print_values(const stepstone_portable_leaf_info* info, const void* values) {
  const size_t size = (size_t)info->size_bytes;
  if (info->kind == STEPSTONE_PORTABLE_KIND_STRING) {
    printf("%.*s\n", (int)size, (const char*)values);
  } else if (info->dtype == STEPSTONE_PORTABLE_FLOAT32) {
    for (size_t i = 0; i < size / 4; ++i) printf("%.9g\n", ((const float*)values)[i]);
  } else if (info->dtype == STEPSTONE_PORTABLE_INT32) {
    for (size_t i = 0; i < size / 4; ++i) printf("%" PRId32 "\n", ((const int32_t*)values)[i]);
  } else if (info->kind == STEPSTONE_PORTABLE_KIND_INT64) {
    printf("%" PRId64 "\n", *(const int64_t*)values);
  } else {
    for (size_t i = 0; i < size; ++i) printf("%02x\n", ((const unsigned char*)values)[i]);
  }
}

static int print_leaf(const stepstone_portable_file* file, const char* item, const char* path) {
  stepstone_portable_leaf_info info = {sizeof(info)};
  stepstone_portable_leaf* leaf = NULL;
  void* bytes = NULL;
  int status = 1;
  if (stepstone_portable_leaf_open(file, STEPSTONE_PORTABLE_LATEST, item, path, &leaf) ==
          STEPSTONE_PORTABLE_OK &&
      stepstone_portable_leaf_describe(leaf, &info) == STEPSTONE_PORTABLE_OK) {
    /* A small file can hold a huge leaf of zeros: how much this program takes is for it to say. */
    if (info.size_bytes > (1u << 30) || (bytes = malloc((size_t)info.size_bytes + 1)) == NULL) {
      fprintf(stderr, "print_leaf: %" PRIu64 " bytes are too many\n", info.size_bytes);
    } else if (stepstone_portable_leaf_read(leaf, 0, bytes, (size_t)info.size_bytes) !=
               STEPSTONE_PORTABLE_OK) {
      failed();
    } else {
      status = 0;
      print_line(&status, leaf);
      print_values(&info, bytes);
    }
  } else {
    failed();
  }
  free(bytes);
  stepstone_portable_leaf_close(leaf);
  return status;
}

int main(int argc, char** argv) {
  stepstone_portable_file* file = NULL;
  int status = 0;
  if (argc != 2 && argc != 4) {
    fprintf(stderr, "usage: print_leaf FILE [ITEM PATH]\n");
    return 2;
  }
  if (stepstone_portable_open(argv[1], &file) != STEPSTONE_PORTABLE_OK) return failed();
  if (argc == 4) {
    status = print_leaf(file, argv[2], argv[3]);
  } else if (stepstone_portable_each_leaf(file, STEPSTONE_PORTABLE_LATEST, print_line, &status) !=
             STEPSTONE_PORTABLE_OK) {
    status = failed();
  }
  stepstone_portable_close(file);
  return status;
}
