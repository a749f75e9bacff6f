#pragma once

#include <rocksdb/env.h>

#include <cstdarg>
#include <cstddef>

namespace stepstone {

// Takes RocksDB's messages and keeps none.
class NullLogger : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char* /*format*/, va_list /*arguments*/) override {}
  std::size_t GetLogFileSize() const override { return 0; }
};

}  // namespace stepstone
