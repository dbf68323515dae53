// A qemu plugin (API version 1, qemu 4.2 and later) that prints how many guest instructions a program executed.
// Debian's qemu takes plugins but ships no header for them, hence the declarations by hand.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct qemu_plugin_tb;
typedef void (*translated)(uint64_t id, struct qemu_plugin_tb* block);
typedef void (*at_exit)(uint64_t id, void* data);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, translated f);
void qemu_plugin_register_atexit_cb(uint64_t id, at_exit f, void* data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* block);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb* block, int operation, void* at, uint64_t value);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;
static uint64_t count;

static void translate(uint64_t id, struct qemu_plugin_tb* block) {
  (void)id;
  qemu_plugin_register_vcpu_tb_exec_inline(block, 0 /* add */, &count, qemu_plugin_tb_n_insns(block));
}

static void finish(uint64_t id, void* data) {
  (void)id, (void)data;
  fprintf(stderr, "%llu\n", (unsigned long long)count);
}

__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const void* info, int argc, char** argv) {
  (void)info, (void)argc, (void)argv;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
  qemu_plugin_register_atexit_cb(id, finish, NULL);
  return 0;
}
