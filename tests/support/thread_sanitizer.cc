// RocksDB comes from the system, and ThreadSanitizer sees only part of what it does: the bytes that
// are copied into a memtable, not the atomic pointers that publish them to readers.
extern "C" {
const char* __tsan_default_suppressions();                                             // NOLINT
const char* __tsan_default_suppressions() { return "race:rocksdb::MemTable::Add\n"; }  // NOLINT
}
