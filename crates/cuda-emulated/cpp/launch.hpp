// The door into the emulator. Kernel files are included before.
extern "C" __attribute__((visibility("default"))) int brisk_emulated_launch(const char* name, const unsigned* grid, const unsigned* size, unsigned shared,
                                     unsigned seed, unsigned count, const unsigned* sizes, void** arguments) {
    for (const emulated::Entry* e = emulated::Entry::first; e; e = e->next) {
        if (std::strcmp(e->name, name)) continue;
        if (count != e->caller->count) return emulated::OTHER_ARGUMENTS;
        for (unsigned i = 0; i < count; i++) if (sizes[i] != e->caller->sizes[i]) return emulated::OTHER_ARGUMENTS;
        const unsigned threads = size[0] * size[1] * size[2];
        if (threads == 0 || threads % 32 || threads > e->threads) return emulated::OTHER_BLOCK;
        emulated::block.call = e->caller->call;
        emulated::block.arguments = arguments;
        return emulated::run({grid[0], grid[1], grid[2]}, {size[0], size[1], size[2]}, shared, seed);
    }
    return emulated::UNKNOWN_KERNEL;
}
