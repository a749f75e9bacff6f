// RocksDB comes from the system, and ThreadSanitizer sees only part of what it does: that it
// copies, compares and frees memory, not the atomic counters and pointers that put these in order.
// So what code without instrumentation reads and writes is left out; its locks still count.
extern "C" {
const char* __tsan_default_options();                                                  // NOLINT
const char* __tsan_default_options() { return "ignore_noninstrumented_modules=1"; }    // NOLINT
const char* __tsan_default_suppressions();                                             // NOLINT
const char* __tsan_default_suppressions() { return "race:rocksdb::MemTable::Add\n"; }  // NOLINT
}
