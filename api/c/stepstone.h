#ifndef STEPSTONE_C_STEPSTONE_H_
#define STEPSTONE_C_STEPSTONE_H_
/* Stepstone for C, and for whatever calls C: a run's checkpoints in one directory.
 *
 * Every function that can fail returns a stepstone_code; STEPSTONE_OK is 0. After any other,
 * stepstone_error_text() says what was wrong, and bad arguments have changed nothing. A pointer
 * that is NULL where nothing says that it may be gives STEPSTONE_INVALID_ARGUMENT. Outputs are
 * written only on success. Any function may also give STEPSTONE_LIMIT: there was no memory.
 *
 * Handles are opaque. Each is freed once, with its own function, which takes NULL as well; no other
 * call may be using it then. What else they allow is said at each.
 *
 * Text is UTF-8 and ends with a NUL. Sizes are in bytes. A leaf is named by its item and its path:
 * "params/dense/w", "layers[3]/w", "{7}" for an integer key, ".mu" for an attribute; a backslash
 * makes a special character plain, \xHH is a byte. stepstone_path_text() writes any path so.
 * Linking needs the C++ runtime: let a C++ compiler link. */
#include <stddef.h>
#include <stdint.h>

/* The names are C's, not those that the C++ sources follow.
 * NOLINTBEGIN(readability-identifier-naming,modernize-*) */
#ifdef __cplusplus
extern "C" {
#endif

/* The version of this interface. It grows when something is added, and nothing is ever taken away
 * or changed: a program runs with a library whose version is at least its own. */
#define STEPSTONE_C_VERSION 1
uint32_t stepstone_c_version(void); /* The library's. Any thread; cannot fail. */

typedef int32_t stepstone_code;
enum {
  STEPSTONE_OK = 0,
  STEPSTONE_INVALID_ARGUMENT = 1, /* The call itself is wrong, whatever the store holds. */
  STEPSTONE_NOT_FOUND = 2,        /* The store, step, item or leaf is not there. */
  STEPSTONE_ALREADY_EXISTS = 3,   /* It is there, and replacing it was not asked for. */
  STEPSTONE_MISMATCH = 4,         /* What is stored is of another kind or shape. */
  STEPSTONE_CORRUPT = 5,          /* Stored bytes are not the bytes that were saved. */
  STEPSTONE_UNSUPPORTED = 6,      /* From a newer version, or by a handler that is not known. */
  STEPSTONE_LIMIT = 7,            /* Too large for the format, or for memory. */
  STEPSTONE_IO = 8,               /* The operating system refused a read or a write. */
  STEPSTONE_NO_SPACE = 9,         /* The disk (or the quota) is full. */
  STEPSTONE_PERMISSION_DENIED = 10,
  STEPSTONE_READ_ONLY = 11, /* The store was opened read-only, or the file system is. */
  STEPSTONE_BUSY = 12,      /* Another process writes to it, or a wait timed out. */
  STEPSTONE_CLOSED = 13     /* It was closed, or refuses writes after an earlier failure. */
};
/* "not_found"; "unknown" for other numbers. Valid for ever. Any thread. */
const char* stepstone_code_name(stepstone_code code);
/* What the calling thread's last call that returns a stepstone_code failed with; "" if it did not
 * fail. Cut after 2047 bytes. Valid until the thread's next such call. Cannot fail. */
const char* stepstone_error_text(void);

typedef int32_t
    stepstone_dtype; /* Little-endian; those of 2 and 4 bits are packed, low bits first. */
enum {
  STEPSTONE_BOOL = 1,
  STEPSTONE_INT2 = 2,
  STEPSTONE_INT4 = 3,
  STEPSTONE_INT8 = 4,
  STEPSTONE_INT16 = 5,
  STEPSTONE_INT32 = 6,
  STEPSTONE_INT64 = 7,
  STEPSTONE_UINT2 = 8,
  STEPSTONE_UINT4 = 9,
  STEPSTONE_UINT8 = 10,
  STEPSTONE_UINT16 = 11,
  STEPSTONE_UINT32 = 12,
  STEPSTONE_UINT64 = 13,
  STEPSTONE_FLOAT16 = 14,
  STEPSTONE_BFLOAT16 = 15,
  STEPSTONE_FLOAT32 = 16,
  STEPSTONE_FLOAT64 = 17,
  STEPSTONE_FLOAT8_E4M3FN = 18,
  STEPSTONE_FLOAT8_E5M2 = 19,
  STEPSTONE_FLOAT8_E4M3B11FNUZ = 20,
  STEPSTONE_FLOAT8_E4M3FNUZ = 21,
  STEPSTONE_FLOAT8_E5M2FNUZ = 22,
  STEPSTONE_FLOAT8_E3M4 = 23,
  STEPSTONE_FLOAT8_E4M3 = 24,
  STEPSTONE_FLOAT8_E8M0FNU = 25,
  STEPSTONE_FLOAT4_E2M1FN = 26,
  STEPSTONE_COMPLEX64 = 27,
  STEPSTONE_COMPLEX128 = 28
};

typedef int32_t stepstone_kind; /* What a leaf is, and the bytes that a restore gives. */
enum {
  STEPSTONE_KIND_ARRAY = 1,       /* The elements, C-contiguous. */
  STEPSTONE_KIND_NONE = 2,        /* No bytes. */
  STEPSTONE_KIND_BOOL = 3,        /* One byte, 0 or 1. */
  STEPSTONE_KIND_INT64 = 4,       /* Eight bytes, as int64_t. */
  STEPSTONE_KIND_BIG_INTEGER = 5, /* Decimal text, without a NUL. */
  STEPSTONE_KIND_FLOAT64 = 6,     /* Eight bytes, as double. */
  STEPSTONE_KIND_COMPLEX128 = 7,  /* Sixteen bytes, real part first. */
  STEPSTONE_KIND_STRING = 8,      /* UTF-8, without a NUL. */
  STEPSTONE_KIND_BYTES = 9
};

/* Paths ------------------------------------------------------------------------------------- */
enum {
  STEPSTONE_PATH_INDEX = 1,       /* `number`: position in a list. */
  STEPSTONE_PATH_INTEGER_KEY = 2, /* `number`: key of a dict. */
  STEPSTONE_PATH_STRING_KEY = 3,  /* `name`: key of a dict. */
  STEPSTONE_PATH_ATTRIBUTE = 4    /* `name`: field of a custom node. */
};
typedef struct stepstone_path_component {
  int32_t kind;
  int64_t number;
  const char* name; /* Any bytes; may be NULL where name_size_bytes is 0. */
  size_t name_size_bytes;
} stepstone_path_component;
/* Writes the path as text with its NUL, if it fits into `capacity_bytes`, and its size without the
 * NUL to *size_bytes. `text` may be NULL where the capacity is 0, `components` where the count is.
 * STEPSTONE_LIMIT: it does not fit (then *size_bytes is written too), or the path is too deep or
 * long. STEPSTONE_INVALID_ARGUMENT: no such kind, or a position that is negative or over 32 bits.
 * Any thread. */
stepstone_code stepstone_path_text(const stepstone_path_component* components, size_t count,
                                   char* text, size_t capacity_bytes, size_t* size_bytes);

/* Stores ------------------------------------------------------------------------------------ */
typedef struct stepstone_store stepstone_store; /* Any number of threads may use one. */
/* Begin with STEPSTONE_OPTIONS_INIT and change what differs. */
typedef struct stepstone_options {
  size_t struct_size_bytes;     /* sizeof(stepstone_options): tells versions apart. */
  uint64_t save_interval_steps; /* Save multiples of it, and the first step of all; not 0. */
  uint64_t max_to_keep;         /* Retire all but the newest so many at each save (a step before the
                                 newest stays until the next save, and so does the newest); 0: keep
                                 all. */
  uint64_t async_queue_size_bytes; /* Of saves in the background together; 0: one at a time. */
  uint64_t wait_timeout_ms; /* How long a call waits for saves, then STEPSTONE_BUSY; 0: for ever. */
  int32_t create;           /* 1: make the directory if it is missing. */
  int32_t read_only;        /* 1: never writes; another process may be writing meanwhile. */
  int32_t async;            /* 1: saves are written in the background. */
} stepstone_options;
#define STEPSTONE_OPTIONS_INIT \
  { sizeof(stepstone_options), 1, 0, 0, 1200000, 1, 0, 1 }

/* Opens the store in `directory`, or, read_only and without `create`, the portable file of that
 * name; `options` may be NULL: the defaults. INVALID_ARGUMENT: an option
 * is impossible, or it is something else than a store. UNSUPPORTED: the options are larger than
 * this library knows. NOT_FOUND: nothing there, and it may not be made. BUSY: another process
 * writes to it. CORRUPT, IO, NO_SPACE, PERMISSION_DENIED, READ_ONLY. */
stepstone_code stepstone_open(const char* directory, const stepstone_options* options,
                              stepstone_store** store);
/* Waits for saves in the background and closes; every other call then gives CLOSED. To be called
 * again, it does nothing. Returns the error of a save that nobody has seen; the store is closed all
 * the same. BUSY: the wait timed out, or this is the last store on the directory in the process and
 * a restore is running: it stays open. A stepstone_step stays readable beyond it, and keeps the
 * directory open until it is freed. */
stepstone_code stepstone_close(stepstone_store* store);
/* Closes, if that was not done; an error that nobody has seen goes to standard error. No step that
 * was opened from it depends on it. */
void stepstone_store_free(stepstone_store* store);

/* What is to be saved ----------------------------------------------------------------------- */
typedef struct stepstone_checkpoint stepstone_checkpoint; /* For one thread at a time. */
/* A checkpoint of this one item is one object, which C++ and Python restore without item names. A
 * store holds either such steps or steps of named items. */
#define STEPSTONE_DEFAULT_ITEM "default"

stepstone_code stepstone_checkpoint_create(stepstone_checkpoint** checkpoint);
void stepstone_checkpoint_free(stepstone_checkpoint* checkpoint);
/* These add one leaf; dicts, lists and custom nodes follow from the paths. ALREADY_EXISTS: the path
 * has a leaf. INVALID_ARGUMENT: no such path or dtype, or the path leads through a leaf or ends at
 * a container, or `size_bytes` is not what dtype and shape give. LIMIT: the path, rank or size.
 * `data` of an array is C-contiguous and stays the caller's: it is read by stepstone_save() until
 * that returns, and must be valid until then. `shape` (NULL at rank 0) and all else is copied.
 * Memory may be NULL where its size is 0. */
stepstone_code stepstone_checkpoint_add_array(stepstone_checkpoint* checkpoint, const char* item,
                                              const char* path, stepstone_dtype dtype, size_t rank,
                                              const uint64_t* shape, const void* data,
                                              size_t size_bytes);
stepstone_code stepstone_checkpoint_add_none(stepstone_checkpoint* checkpoint, const char* item,
                                             const char* path);
stepstone_code stepstone_checkpoint_add_bool(stepstone_checkpoint* checkpoint, const char* item,
                                             const char* path, int32_t value);
stepstone_code stepstone_checkpoint_add_int64(stepstone_checkpoint* checkpoint, const char* item,
                                              const char* path, int64_t value);
stepstone_code stepstone_checkpoint_add_float64(stepstone_checkpoint* checkpoint, const char* item,
                                                const char* path, double value);
stepstone_code stepstone_checkpoint_add_complex128(stepstone_checkpoint* checkpoint,
                                                   const char* item, const char* path, double real,
                                                   double imaginary);
/* An integer of any size, as decimal digits without leading zeros, with a '-' in front if it is
 * negative; that it is so is checked by the save. */
stepstone_code stepstone_checkpoint_add_big_integer(stepstone_checkpoint* checkpoint,
                                                    const char* item, const char* path,
                                                    const char* decimal);
/* UTF-8; that it is so is checked by the save. */
stepstone_code stepstone_checkpoint_add_string(stepstone_checkpoint* checkpoint, const char* item,
                                               const char* path, const char* text);
stepstone_code stepstone_checkpoint_add_bytes(stepstone_checkpoint* checkpoint, const char* item,
                                              const char* path, const void* bytes,
                                              size_t size_bytes);
/* A JSON dict; checked by the save. Replaces what was set before; "" takes it away. */
stepstone_code stepstone_checkpoint_set_metrics(stepstone_checkpoint* checkpoint, const char* json);
stepstone_code stepstone_checkpoint_set_custom_metadata(stepstone_checkpoint* checkpoint,
                                                        const char* json);

/* Saving ------------------------------------------------------------------------------------ */
#define STEPSTONE_SAVE_FORCE 1u     /* Whatever the interval says; also before the newest step. */
#define STEPSTONE_SAVE_OVERWRITE 2u /* Replace the step if it is there, atomically. */
/* Saves; *saved (may be NULL) becomes 0 if the interval says no, else 1. When it returns, arrays
 * have been copied, or, without `async`, the step survives power loss. The checkpoint may be
 * changed, saved again or freed. INVALID_ARGUMENT: an unknown flag, or nothing to save, or what
 * cannot be saved. ALREADY_EXISTS: the step is there or on its way. LIMIT, BUSY, CLOSED, READ_ONLY;
 * NO_SPACE, IO. Or the error of an earlier save, which the text names; this one has not begun. */
stepstone_code stepstone_save(stepstone_store* store, uint64_t step,
                              const stepstone_checkpoint* checkpoint, uint32_t flags,
                              int32_t* saved);
/* Waits until all saves are durable. The error of the first that failed, once: its step does not
 * exist. BUSY: the wait timed out; the saves go on. */
stepstone_code stepstone_wait(stepstone_store* store);
/* The same without waiting. */
stepstone_code stepstone_check(stepstone_store* store);
/* *is_saving becomes 1 while a save is in the background, else 0. */
stepstone_code stepstone_is_saving(stepstone_store* store, int32_t* is_saving);

/* Steps ------------------------------------------------------------------------------------- */
#define STEPSTONE_LATEST UINT64_MAX /* Where a step is read: the newest. */
/* Writes the durable steps, ascending, as many as `capacity` has room for, and how many there are
 * to *count. `steps` may be NULL where the capacity is 0. A closed store has none. */
stepstone_code stepstone_steps(stepstone_store* store, uint64_t* steps, size_t capacity,
                               size_t* count);
stepstone_code stepstone_latest_step(stepstone_store* store, uint64_t* step); /* NOT_FOUND: none. */
/* A read-only store shows what was committed since. CLOSED, and as stepstone_open(). */
stepstone_code stepstone_reload(stepstone_store* store);
/* Waits for saves, and makes the step invisible. NOT_FOUND, READ_ONLY, CLOSED, BUSY. */
stepstone_code stepstone_retire(stepstone_store* store, uint64_t step);
/* What a step says of itself, as JSON text, to be freed with stepstone_text_free(): step, times in
 * nanoseconds since 1970, sizes, metrics, custom metadata, items and their leaves; only the
 * metrics; only the custom metadata ("null": saved without). NOT_FOUND, CORRUPT, IO, CLOSED. */
stepstone_code stepstone_metadata(stepstone_store* store, uint64_t step, char** json);
stepstone_code stepstone_metrics(stepstone_store* store, uint64_t step, char** json);
stepstone_code stepstone_custom_metadata(stepstone_store* store, uint64_t step, char** json);
void stepstone_text_free(char* text); /* NULL: nothing. */
/* Copies one step into a new single checkpoint with nothing but this step (as number 0), as
 * Checkpointer of the C++ API writes it: a portable file if `path` ends in ".stone", else a store
 * directory. Durable on return. `replace` 1: what is there is replaced, atomically. Metrics stay
 * behind; custom metadata goes along. The whole step is in memory meanwhile. ALREADY_EXISTS: a
 * checkpoint is there. INVALID_ARGUMENT: something else is, or the path is inside a store.
 * UNSUPPORTED: an item is of a handler that is not the library's. NOT_FOUND, CORRUPT, IO, NO_SPACE,
 * PERMISSION_DENIED, BUSY. */
stepstone_code stepstone_export(stepstone_store* store, uint64_t step, const char* path,
                                int32_t replace);

/* Reading a step ---------------------------------------------------------------------------- */
/* Stays readable whatever becomes of the step. Any number of threads may use one. */
typedef struct stepstone_step stepstone_step;
/* Waits for saves first, and reads nothing of the leaves. NOT_FOUND: no such step, or none.
 * CORRUPT, IO, CLOSED, BUSY. */
stepstone_code stepstone_step_open(stepstone_store* store, uint64_t number, stepstone_step** step);
void stepstone_step_free(stepstone_step* step);
stepstone_code stepstone_step_number(const stepstone_step* step, uint64_t* number);
stepstone_code stepstone_step_leaf_count(const stepstone_step* step, size_t* count);

typedef struct stepstone_leaf_info { /* Its pointers are valid until the step is freed. */
  size_t struct_size_bytes;          /* Set by the caller: sizeof(stepstone_leaf_info). */
  const char* item;
  const char* path;
  stepstone_kind kind;
  stepstone_dtype dtype; /* 0: no array. */
  size_t rank;
  const uint64_t* shape;
  uint64_t size_bytes;   /* What a restore of the whole leaf gives. */
  uint64_t stored_bytes; /* In the store, compressed. */
} stepstone_leaf_info;
/* Of the leaf at a position, in the order of the items' names and then of their trees: the first
 * call reads the records of all leaves. Or of the leaf at a path: one look-up, however many others
 * there are. NOT_FOUND: none there. INVALID_ARGUMENT: another struct size; no such path. CORRUPT,
 * IO. */
stepstone_code stepstone_step_leaf(const stepstone_step* step, size_t index,
                                   stepstone_leaf_info* info);
stepstone_code stepstone_step_find(const stepstone_step* step, const char* item, const char* path,
                                   stepstone_leaf_info* info);

typedef struct stepstone_slice { /* The elements [begin, end) along one axis. */
  uint64_t begin;
  uint64_t end;
} stepstone_slice;
typedef struct stepstone_destination {
  const char* item;
  const char* path;
  void* data;                    /* May be NULL where size_bytes is 0. */
  size_t size_bytes;             /* Exactly those of the leaf, or of the slice. */
  const stepstone_slice* slices; /* Of an array: one per axis, from the first on; others whole. */
  size_t slice_count;            /* 0: the whole leaf; then `slices` may be NULL. */
} stepstone_destination;
/* Reads these leaves, and nothing else, into the caller's memory, in parallel; a few of them cost
 * no more where the step has many others. `destinations` may be NULL where the count is 0.
 * INVALID_ARGUMENT: a size or slice that does not fit, a leaf twice. NOT_FOUND: no such leaf. These
 * are found before anything is written. MISMATCH: the item is no tree, but of another handler (a
 * JSON item of the C++ API). CORRUPT, IO: the destinations hold anything. */
stepstone_code stepstone_restore(const stepstone_step* step,
                                 const stepstone_destination* destinations, size_t count);
/* One whole leaf. */
stepstone_code stepstone_restore_leaf(const stepstone_step* step, const char* item,
                                      const char* path, void* data, size_t size_bytes);

#ifdef __cplusplus
}
#endif
/* NOLINTEND(readability-identifier-naming,modernize-*) */
#endif
