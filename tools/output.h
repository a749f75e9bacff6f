#pragma once
// What the tool says: standard output, tables, sizes, times and the progress bar.

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/error.h"

namespace stepstone::tool {

// "512 B", "1.5 KiB", "86.7 MiB".
std::string format_size(std::uint64_t size_bytes);

// "2025-11-23 22:37:01", in UTC.
std::string format_time(std::int64_t unix_ns);

// "850 ms", "12 s", "3 min 20 s", "2 h 5 min".
std::string format_duration(std::chrono::duration<double> duration);

// A number in at most so many significant digits, as short as it can be: "0.0125", "-3e-08", "nan".
std::string format_number(double number, int digits = 5);

// "1 leaf", "2 leaves".
std::string format_count(std::uint64_t count, std::string_view singular, std::string_view plural);

// Standard output. A reader that goes away (`stepstone cat … | head`) is no error: from then on
// nothing is written, and is_closed() tells the writer that it may stop.
class Output {
 public:
  // kIo, kNoSpace.
  Result<void> write(std::span<const std::byte> bytes);
  Result<void> write(std::string_view text) { return write(std::as_bytes(std::span(text))); }

  bool is_closed() const { return is_closed_; }
  bool has_written() const { return has_written_; }

 private:
  bool is_closed_ = false;
  bool has_written_ = false;
};

// How text looks on a terminal that has colours.
enum class Tone { kPlain, kHeading, kName, kDim, kGood, kWarning, kBad };

// The text, between the terminal's codes for the tone if `color`.
std::string painted(std::string text, Tone tone, bool color);

// Whether standard output is to have colours: `always`, `never`, or `auto`, which is on a terminal
// unless NO_COLOR is set (no-color.org) or TERM is `dumb`.
bool wants_color(std::string_view when);

// Columns aligned by the width of their widest cell. Cells hold printable text.
class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string heading;
    Align align = Align::kLeft;
  };
  struct Cell {
    // NOLINTBEGIN(google-explicit-constructor): most cells are plain text.
    Cell(std::string plain) : text(std::move(plain)) {}
    Cell(const char* plain) : text(plain) {}
    // NOLINTEND(google-explicit-constructor)
    Cell(std::string toned, Tone its_tone) : text(std::move(toned)), tone(its_tone) {}

    std::string text;
    Tone tone = Tone::kPlain;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // As many cells as there are columns.
  void add_row(std::vector<Cell> cells) { rows_.push_back(std::move(cells)); }
  bool is_empty() const { return rows_.empty(); }

  // One line for the headings and one for each row.
  std::string to_string(bool color = false) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

// A bar with rate and time left on standard error, shown only on a terminal and only once the work
// has taken a second; erased when the object goes. Not thread-safe.
class Progress {
 public:
  explicit Progress(std::string label);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void update(std::uint64_t done_bytes, std::uint64_t total_bytes);

 private:
  using Clock = std::chrono::steady_clock;

  std::string label_;
  bool is_terminal_;
  bool is_shown_ = false;
  Clock::time_point begun_;
  Clock::time_point drawn_;
};

}  // namespace stepstone::tool
