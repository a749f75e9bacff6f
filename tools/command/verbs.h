#pragma once
// The tool's verbs. Each says its command line, and keeps to itself what it does; a new one is a
// file with such a function, and its name here twice.

namespace stepstone::tool {

struct CommandLine;

void add_import(CommandLine& line);
void add_ls(CommandLine& line);
void add_du(CommandLine& line);
void add_show(CommandLine& line);
void add_cat(CommandLine& line);
void add_diff(CommandLine& line);
void add_stats(CommandLine& line);
void add_watch(CommandLine& line);
void add_copy(CommandLine& line);
void add_export(CommandLine& line);
void add_verify(CommandLine& line);
void add_rm(CommandLine& line);
void add_keep(CommandLine& line);
void add_gc(CommandLine& line);
void add_recompress(CommandLine& line);
void add_report(CommandLine& line);
void add_serve(CommandLine& line);
void add_bench(CommandLine& line);
void add_completion(CommandLine& line);
void add_man(CommandLine& line);

// In the order in which the help lists them.
inline constexpr void (*kVerbs[])(CommandLine& line) = {
    add_import,     add_ls,     add_du,     add_show,   add_cat,        add_diff, add_stats,
    add_watch,      add_copy,   add_export, add_verify, add_rm,         add_keep, add_gc,
    add_recompress, add_report, add_serve,  add_bench,  add_completion, add_man,
};

}  // namespace stepstone::tool
