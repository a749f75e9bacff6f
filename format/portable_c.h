#ifndef STEPSTONE_FORMAT_PORTABLE_C_H_
#define STEPSTONE_FORMAT_PORTABLE_C_H_
/* Reads portable files (*.stone) from C: without a database, without threads, and without the rest
 * of Stepstone. A file may come from a stranger: whatever is in it, nothing is read outside of it,
 * and nothing is given out that does not have its hash, unless that was asked for.
 *
 * Every function that can fail returns a stepstone_portable_code; STEPSTONE_PORTABLE_OK is 0. After
 * any other, stepstone_portable_error_text() says what was wrong. A pointer that is NULL where
 * nothing says that it may be gives INVALID_ARGUMENT. Outputs are written only on success, but for
 * the memory that leaves are read into. Any function may also give LIMIT: there was no memory.
 * Every function that looks into a file may give CORRUPT, UNSUPPORTED (a newer version wrote it),
 * and IO.
 *
 * Handles are opaque. Each is freed once, with its own function, which takes NULL as well; no other
 * call may be using it then. Otherwise any number of threads may use one.
 *
 * Text is UTF-8 and ends with a NUL. Sizes are in bytes. A leaf is named by its item and its path:
 * "params/dense/w", "layers[3]/w", "{7}" for an integer key, ".mu" for an attribute; a backslash
 * makes a special character plain, \xHH is a byte. Linking needs the C++ runtime: let a C++
 * compiler link. */
#include <stddef.h>
#include <stdint.h>

/* The names are C's, not those that the C++ sources follow.
 * NOLINTBEGIN(readability-identifier-naming,modernize-*) */
#ifdef __cplusplus
extern "C" {
#endif

/* The version of this interface. It grows when something is added, and nothing is ever taken away
 * or changed: a program runs with a library whose version is at least its own. */
#define STEPSTONE_PORTABLE_VERSION 1
uint32_t stepstone_portable_version(void); /* The library's. Any thread; cannot fail. */

/* The numbers are those of stepstone/c/stepstone.h. */
typedef int32_t stepstone_portable_code;
enum {
  STEPSTONE_PORTABLE_OK = 0,
  STEPSTONE_PORTABLE_INVALID_ARGUMENT = 1, /* The call itself is wrong. */
  STEPSTONE_PORTABLE_NOT_FOUND = 2,        /* The file, step, item or leaf is not there. */
  STEPSTONE_PORTABLE_CORRUPT = 5,          /* Damaged, or not a portable file. */
  STEPSTONE_PORTABLE_UNSUPPORTED = 6,      /* From a newer version, or cannot be viewed in place. */
  STEPSTONE_PORTABLE_LIMIT = 7,            /* Too large for this machine's memory or addresses. */
  STEPSTONE_PORTABLE_IO = 8, /* The operating system, or a callback, refused a read. */
  STEPSTONE_PORTABLE_PERMISSION_DENIED = 10
};
/* "not_found"; "unknown" for other numbers. Valid for ever. Any thread. */
const char* stepstone_portable_code_name(stepstone_portable_code code);
/* What the calling thread's last call that returns a stepstone_portable_code failed with; "" if it
 * did not fail. Cut after 1023 bytes. Valid until the thread's next such call. Cannot fail. */
const char* stepstone_portable_error_text(void);

/* Files ------------------------------------------------------------------------------------- */
typedef struct stepstone_portable_file stepstone_portable_file;

/* Opens the file `path`, whatever its size, by reading its two ends. INVALID_ARGUMENT: it is no
 * regular file. NOT_FOUND, PERMISSION_DENIED.
 *
 * By reads: one that fails, or a file that has become shorter, is an error of the call that met it.
 * Nothing of it can be viewed in place. */
stepstone_portable_code stepstone_portable_open(const char* path, stepstone_portable_file** file);
/* By a mapping: its leaves can be viewed without a copy. A failing disk, or a file that becomes
 * shorter meanwhile, ends the process with SIGBUS. */
stepstone_portable_code stepstone_portable_map(const char* path, stepstone_portable_file** file);
/* The same of a file that lies in memory, or in flash, at a multiple of 8 (of 64 where views have
 * to be, too), and stays as it is until the file is closed. INVALID_ARGUMENT: it lies elsewhere. */
stepstone_portable_code stepstone_portable_open_memory(const void* data, size_t size_bytes,
                                                       stepstone_portable_file** file);
/* Of a file of `size_bytes` that `read` reads: it fills `destination` with the bytes from `offset`
 * on, is never asked beyond the end, and returns 0, or anything else, which is IO. From as many
 * threads as use the file. */
typedef int (*stepstone_portable_read)(void* context, uint64_t offset, void* destination,
                                       size_t size_bytes);
stepstone_portable_code stepstone_portable_open_with(uint64_t size_bytes,
                                                     stepstone_portable_read read, void* context,
                                                     stepstone_portable_file** file);
/* All of its leaves must be closed, and no view of them is valid any more. */
void stepstone_portable_close(stepstone_portable_file* file);

/* Checks everything: every byte of the file belongs to one thing and has its hash. Takes memory for
 * about twice the records of the file. What reads only some leaves need not call it: every read
 * checks what it reads. */
stepstone_portable_code stepstone_portable_verify(const stepstone_portable_file* file);

/* Writes the steps, ascending, as many as `capacity` has room for, and how many there are to
 * *count. `steps` may be NULL where the capacity is 0. */
stepstone_portable_code stepstone_portable_steps(const stepstone_portable_file* file,
                                                 uint64_t* steps, size_t capacity, size_t* count);

/* Leaves ------------------------------------------------------------------------------------ */
#define STEPSTONE_PORTABLE_LATEST UINT64_MAX /* Where a step is read: the newest. */

typedef struct stepstone_portable_leaf stepstone_portable_leaf;
/* Finds one leaf, in a few reads, however many there are. INVALID_ARGUMENT: no such path can be.
 * NOT_FOUND: it is not there. */
stepstone_portable_code stepstone_portable_leaf_open(const stepstone_portable_file* file,
                                                     uint64_t step, const char* item,
                                                     const char* path,
                                                     stepstone_portable_leaf** leaf);
void stepstone_portable_leaf_close(stepstone_portable_leaf* leaf);
/* Calls `visit` for each leaf of a step, item by item, in the order of their paths. The leaf is
 * valid during the call, and can be read in it; it is not to be closed. Anything but 0 from `visit`
 * ends the listing, which is no error. NOT_FOUND: no such step. */
typedef int (*stepstone_portable_visit)(void* context, const stepstone_portable_leaf* leaf);
stepstone_portable_code stepstone_portable_each_leaf(const stepstone_portable_file* file,
                                                     uint64_t step, stepstone_portable_visit visit,
                                                     void* context);

typedef int32_t stepstone_portable_kind; /* What a leaf is, and the bytes that a read gives. */
enum {
  STEPSTONE_PORTABLE_KIND_ARRAY = 1,       /* The elements, C-contiguous. */
  STEPSTONE_PORTABLE_KIND_NONE = 2,        /* No bytes. */
  STEPSTONE_PORTABLE_KIND_BOOL = 3,        /* One byte, 0 or 1. */
  STEPSTONE_PORTABLE_KIND_INT64 = 4,       /* Eight bytes, as int64_t. */
  STEPSTONE_PORTABLE_KIND_BIG_INTEGER = 5, /* Decimal text, without a NUL. */
  STEPSTONE_PORTABLE_KIND_FLOAT64 = 6,     /* Eight bytes, as double. */
  STEPSTONE_PORTABLE_KIND_COMPLEX128 = 7,  /* Sixteen bytes, real part first. */
  STEPSTONE_PORTABLE_KIND_STRING = 8,      /* UTF-8, without a NUL. */
  STEPSTONE_PORTABLE_KIND_BYTES = 9
};
typedef int32_t
    stepstone_portable_dtype; /* Little-endian; those of 2 and 4 bits are packed, low bits first. */
enum {
  STEPSTONE_PORTABLE_BOOL = 1,
  STEPSTONE_PORTABLE_INT2 = 2,
  STEPSTONE_PORTABLE_INT4 = 3,
  STEPSTONE_PORTABLE_INT8 = 4,
  STEPSTONE_PORTABLE_INT16 = 5,
  STEPSTONE_PORTABLE_INT32 = 6,
  STEPSTONE_PORTABLE_INT64 = 7,
  STEPSTONE_PORTABLE_UINT2 = 8,
  STEPSTONE_PORTABLE_UINT4 = 9,
  STEPSTONE_PORTABLE_UINT8 = 10,
  STEPSTONE_PORTABLE_UINT16 = 11,
  STEPSTONE_PORTABLE_UINT32 = 12,
  STEPSTONE_PORTABLE_UINT64 = 13,
  STEPSTONE_PORTABLE_FLOAT16 = 14,
  STEPSTONE_PORTABLE_BFLOAT16 = 15,
  STEPSTONE_PORTABLE_FLOAT32 = 16,
  STEPSTONE_PORTABLE_FLOAT64 = 17,
  STEPSTONE_PORTABLE_FLOAT8_E4M3FN = 18,
  STEPSTONE_PORTABLE_FLOAT8_E5M2 = 19,
  STEPSTONE_PORTABLE_FLOAT8_E4M3B11FNUZ = 20,
  STEPSTONE_PORTABLE_FLOAT8_E4M3FNUZ = 21,
  STEPSTONE_PORTABLE_FLOAT8_E5M2FNUZ = 22,
  STEPSTONE_PORTABLE_FLOAT8_E3M4 = 23,
  STEPSTONE_PORTABLE_FLOAT8_E4M3 = 24,
  STEPSTONE_PORTABLE_FLOAT8_E8M0FNU = 25,
  STEPSTONE_PORTABLE_FLOAT4_E2M1FN = 26,
  STEPSTONE_PORTABLE_COMPLEX64 = 27,
  STEPSTONE_PORTABLE_COMPLEX128 = 28
};
/* "array", "float32"; "unknown" for other numbers. Valid for ever. Any thread. */
const char* stepstone_portable_kind_name(stepstone_portable_kind kind);
const char* stepstone_portable_dtype_name(stepstone_portable_dtype dtype);
/* Of one element: 2 to 128; 0 for other numbers. */
uint32_t stepstone_portable_dtype_bits(stepstone_portable_dtype dtype);

typedef struct stepstone_portable_leaf_info { /* Its pointers are valid as long as the leaf is. */
  size_t struct_size_bytes; /* Set by the caller: sizeof(stepstone_portable_leaf_info). */
  uint64_t step;
  const char* item; /* As the file has it; one with a NUL inside ends there. */
  const char* path; /* As text: printable, whatever the file has. */
  stepstone_portable_kind kind;
  stepstone_portable_dtype dtype; /* 0: no array. */
  size_t rank;
  const uint64_t* shape;
  uint64_t size_bytes;   /* Of the whole leaf. A small file can truthfully hold huge zeros: look at
                            this before memory is taken for it. */
  int32_t is_contiguous; /* 1: its bytes stand in one piece, not compressed; else 0. */
} stepstone_portable_leaf_info;
/* INVALID_ARGUMENT: another struct size. */
stepstone_portable_code stepstone_portable_leaf_describe(const stepstone_portable_leaf* leaf,
                                                         stepstone_portable_leaf_info* info);

/* Fills `data` with `size_bytes` bytes of the leaf, from `first_byte` on, each of them checked.
 * Reads the chunks that they stand in and nothing else, and holds one chunk (at most 16 MiB) beside
 * them. `data` may be NULL where the size is 0. INVALID_ARGUMENT: the leaf has not so many. After
 * an error `data` holds anything. */
stepstone_portable_code stepstone_portable_leaf_read(const stepstone_portable_leaf* leaf,
                                                     uint64_t first_byte, void* data,
                                                     size_t size_bytes);
/* Writes to *data where the whole leaf stands, at a multiple of 64 unless it is tiny; NULL if it
 * has no bytes. Valid as long as the leaf and the file. With `check` 1 all of it is read first and
 * has to have its hash; with 0 only what is looked at is read, and damage is not noticed.
 * UNSUPPORTED: it is not contiguous, or the file is not mapped or in memory. INVALID_ARGUMENT:
 * another `check`. */
stepstone_portable_code stepstone_portable_leaf_view(const stepstone_portable_leaf* leaf,
                                                     int32_t check, const void** data);

#ifdef __cplusplus
}
#endif
/* NOLINTEND(readability-identifier-naming,modernize-*) */
#endif
