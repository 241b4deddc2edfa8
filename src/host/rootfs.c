#include "host/rootfs.h"

#include <errno.h>
#include <ext2fs/ext2_err.h>
#include <ext2fs/ext2fs.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "host/gpt.h"
#include "host/spawn.h"
#include "host/tar.h"

#define COPY_BYTES (256u << 10)
#define MODE_FILE 0100000u
#define MODE_FOLDER 0040000u
#define MODE_CHAR 0020000u
#define MODE_BLOCK 0060000u
#define MODE_FIFO 0010000u

struct rootfs {
    ext2_filsys fs;
    struct tar *tar;
    char folder[TAR_PATH_MAX]; /* the last folder looked up, and its inode: entries come folder by folder */
    ext2_ino_t folder_inode;
    uint64_t written;
    void (*progress)(void *owner, uint64_t bytes);
    void *owner;
    char buffer[COPY_BYTES];
};

static int failed(errcode_t code, struct error *error, const char *what, const char *path)
{
    int r = code == EXT2_ET_BLOCK_ALLOC_FAIL || code == EXT2_ET_INODE_ALLOC_FAIL ? ENOSPC : EIO;
    if (r == ENOSPC)
        return error_set(error, r, "the disk is too small; give a larger --size");
    return error_set(error, r, "%s /%s in the new file system: %s", what, path, error_message(code));
}

/* The inode of the folder that `path` is in; *ret_name is the rest of the path. Folders that the archive has not
 * named are an error. */
static int find_folder(struct rootfs *rootfs, const char *path, ext2_ino_t *ret_inode, const char **ret_name,
                       struct error *error)
{
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    *ret_name = slash ? slash + 1 : path;
    if (!rootfs->folder_inode || strlen(rootfs->folder) != length || memcmp(rootfs->folder, path, length) != 0) {
        memcpy(rootfs->folder, path, length);
        rootfs->folder[length] = 0;
        rootfs->folder_inode = 0;
        ext2_ino_t inode = EXT2_ROOT_INO;
        errcode_t code = length ? ext2fs_namei(rootfs->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, rootfs->folder, &inode) : 0;
        if (code)
            return failed(code, error, "finding the folder of", path);
        rootfs->folder_inode = inode;
    }
    *ret_inode = rootfs->folder_inode;
    return 0;
}

/* Adds a name to a folder, which grows when it is full. */
static errcode_t add_name(ext2_filsys fs, ext2_ino_t folder, const char *name, ext2_ino_t inode, int type)
{
    errcode_t code = ext2fs_link(fs, folder, name, inode, type);
    if (code == EXT2_ET_DIR_NO_SPACE) {
        code = ext2fs_expand_dir(fs, folder);
        if (!code)
            code = ext2fs_link(fs, folder, name, inode, type);
    }
    return code;
}

static errcode_t make_folder(ext2_filsys fs, ext2_ino_t folder, const char *name)
{
    errcode_t code = ext2fs_mkdir(fs, folder, 0, name);
    if (code == EXT2_ET_DIR_NO_SPACE) {
        code = ext2fs_expand_dir(fs, folder);
        if (!code)
            code = ext2fs_mkdir(fs, folder, 0, name);
    }
    return code;
}

static errcode_t make_symlink(ext2_filsys fs, ext2_ino_t folder, const char *name, const char *target)
{
    errcode_t code = ext2fs_symlink(fs, folder, 0, name, target);
    if (code == EXT2_ET_DIR_NO_SPACE) {
        code = ext2fs_expand_dir(fs, folder);
        if (!code)
            code = ext2fs_symlink(fs, folder, 0, name, target);
    }
    return code;
}

/* A new inode that is no folder and no symbolic link, with its name. */
static errcode_t make_inode(ext2_filsys fs, ext2_ino_t folder, const char *name, const struct tar_entry *entry,
                            ext2_ino_t *ret_inode)
{
    static const struct {
        uint32_t mode;
        int type;
    } kinds[] = {[TAR_FILE] = {MODE_FILE, EXT2_FT_REG_FILE}, [TAR_CHAR] = {MODE_CHAR, EXT2_FT_CHRDEV},
                 [TAR_BLOCK] = {MODE_BLOCK, EXT2_FT_BLKDEV}, [TAR_FIFO] = {MODE_FIFO, EXT2_FT_FIFO}};
    struct ext2_inode inode = {.i_mode = (uint16_t)kinds[entry->type].mode, .i_links_count = 1};
    errcode_t code = ext2fs_new_inode(fs, folder, (int)inode.i_mode, 0, ret_inode);
    if (!code)
        code = add_name(fs, folder, name, *ret_inode, kinds[entry->type].type);
    if (code)
        return code;
    ext2fs_inode_alloc_stats2(fs, *ret_inode, +1, 0);
    if (entry->type == TAR_CHAR || entry->type == TAR_BLOCK) /* the kernel's "new" device number */
        inode.i_block[1] = (entry->minor & 0xff) | entry->major << 8 | (entry->minor & ~0xffu) << 12;
    if (entry->type == TAR_FILE) {
        inode.i_flags = EXT4_EXTENTS_FL;
        struct ext3_extent_header *head = (void *)inode.i_block;
        *head = (struct ext3_extent_header){.eh_magic = ext2fs_cpu_to_le16(EXT3_EXT_MAGIC), .eh_max = ext2fs_cpu_to_le16(4)};
    }
    return ext2fs_write_new_inode(fs, *ret_inode, &inode);
}

/* Copies the entry's content. Its blocks are taken first and together, so that the guest reads in long runs. */
static int copy_content(struct rootfs *rootfs, ext2_ino_t inode, const struct tar_entry *entry, struct error *error)
{
    if (entry->size == 0)
        return 0;
    blk64_t blocks = (entry->size + rootfs->fs->blocksize - 1) / rootfs->fs->blocksize;
    if (blocks > ext2fs_free_blocks_count(rootfs->fs->super))
        return failed(EXT2_ET_BLOCK_ALLOC_FAIL, error, "", "");
    ext2_file_t file = NULL;
    errcode_t code = ext2fs_fallocate(rootfs->fs, EXT2_FALLOCATE_FORCE_INIT, inode, NULL, ~0ULL, 0, blocks);
    if (!code)
        code = ext2fs_file_open(rootfs->fs, inode, EXT2_FILE_WRITE, &file);
    if (code)
        return failed(code, error, "making", entry->path);
    int64_t got;
    while ((got = tar_read(rootfs->tar, rootfs->buffer, sizeof rootfs->buffer, error)) > 0) {
        unsigned put;
        code = ext2fs_file_write(file, rootfs->buffer, (unsigned)got, &put);
        if (code || put != got)
            break;
        rootfs->written += (uint64_t)got;
    }
    errcode_t closed = ext2fs_file_close(file);
    if (got < 0)
        return (int)got;
    if (code || closed)
        return failed(code ? code : closed, error, "writing", entry->path);
    if (rootfs->progress)
        rootfs->progress(rootfs->owner, rootfs->written);
    return 0;
}

static errcode_t set_xattrs(ext2_filsys fs, ext2_ino_t inode, const struct tar_entry *entry)
{
    struct ext2_xattr_handle *handle;
    errcode_t code = ext2fs_xattrs_open(fs, inode, &handle);
    if (code)
        return code;
    for (unsigned i = 0; i < entry->xattrs && !code; i++)
        code = ext2fs_xattr_set(handle, entry->xattr[i].name, entry->xattr[i].value, entry->xattr[i].length);
    errcode_t closed = ext2fs_xattrs_close(&handle);
    return code ? code : closed;
}

/* Owner, permissions and times, the same for every kind. */
static int set_attributes(struct rootfs *rootfs, ext2_ino_t number, const struct tar_entry *entry, struct error *error)
{
    struct ext2_inode_large inode;
    struct ext2_inode *small = (struct ext2_inode *)(void *)&inode;
    errcode_t code = ext2fs_read_inode_full(rootfs->fs, number, small, sizeof inode);
    if (!code) {
        uint32_t time = entry->mtime < 0 ? 0 : (uint32_t)entry->mtime, epoch = (uint32_t)((uint64_t)entry->mtime >> 32) & 3;
        inode.i_mode = (uint16_t)((inode.i_mode & 0170000) | entry->mode);
        if (entry->type == TAR_SYMLINK)
            inode.i_mode = 0120777;
        inode.i_uid = (uint16_t)entry->uid;
        inode.i_gid = (uint16_t)entry->gid;
        ext2fs_set_i_uid_high(*small, entry->uid >> 16);
        ext2fs_set_i_gid_high(*small, entry->gid >> 16);
        inode.i_mtime = inode.i_ctime = inode.i_atime = time;
        inode.i_mtime_extra = inode.i_ctime_extra = inode.i_atime_extra = entry->mtime < 0 ? 0 : epoch;
        code = ext2fs_write_inode_full(rootfs->fs, number, small, sizeof inode);
    }
    if (!code && entry->xattrs)
        code = set_xattrs(rootfs->fs, number, entry);
    return code ? failed(code, error, "setting the attributes of", entry->path) : 0;
}

static int add_link(struct rootfs *rootfs, ext2_ino_t folder, const char *name, const struct tar_entry *entry,
                    struct error *error)
{
    struct ext2_inode inode;
    ext2_ino_t number;
    errcode_t code = ext2fs_namei(rootfs->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, entry->target, &number);
    if (!code)
        code = ext2fs_read_inode(rootfs->fs, number, &inode);
    if (!code && (LINUX_S_ISDIR(inode.i_mode) || inode.i_links_count >= 65000))
        code = EXT2_ET_INVALID_ARGUMENT;
    if (!code)
        code = add_name(rootfs->fs, folder, name, number, LINUX_S_ISREG(inode.i_mode) ? EXT2_FT_REG_FILE : EXT2_FT_UNKNOWN);
    inode.i_links_count++;
    if (!code)
        code = ext2fs_write_inode(rootfs->fs, number, &inode);
    return code ? failed(code, error, "linking", entry->path) : 0;
}

static int add_entry(struct rootfs *rootfs, const struct tar_entry *entry, struct error *error)
{
    ext2_ino_t folder, inode = EXT2_ROOT_INO;
    const char *name;
    if (!entry->path[0])
        return entry->type == TAR_FOLDER ? set_attributes(rootfs, inode, entry, error) : 0;
    int r = find_folder(rootfs, entry->path, &folder, &name, error);
    if (r < 0 || entry->type == TAR_LINK)
        return r < 0 ? r : add_link(rootfs, folder, name, entry, error);
    errcode_t code = 0;
    /* lost+found is there already; nothing else may come twice. */
    bool there = entry->type == TAR_FOLDER && ext2fs_lookup(rootfs->fs, folder, name, (int)strlen(name), NULL, &inode) == 0;
    if (entry->type == TAR_FOLDER && !there)
        code = make_folder(rootfs->fs, folder, name);
    else if (entry->type == TAR_SYMLINK)
        code = make_symlink(rootfs->fs, folder, name, entry->target);
    else if (!there)
        code = make_inode(rootfs->fs, folder, name, entry, &inode);
    if (!code && !there && (entry->type == TAR_FOLDER || entry->type == TAR_SYMLINK))
        code = ext2fs_lookup(rootfs->fs, folder, name, (int)strlen(name), NULL, &inode);
    if (code)
        return failed(code, error, "making", entry->path);
    r = entry->type == TAR_FILE ? copy_content(rootfs, inode, entry, error) : 0;
    return r < 0 ? r : set_attributes(rootfs, inode, entry, error);
}

/* All of the archive. What comes after its end mark (tar pads to 10 KiB) is read and dropped, so that its writer does
 * not see a broken pipe. */
static int add_all(struct rootfs *rootfs, int tar_fd, struct error *error)
{
    struct tar_entry entry;
    int r;
    while ((r = tar_next(rootfs->tar, &entry, error)) > 0) {
        r = add_entry(rootfs, &entry, error);
        if (r < 0)
            return r;
    }
    while (r == 0 && read(tar_fd, rootfs->buffer, sizeof rootfs->buffer) > 0)
        continue;
    return r;
}

static int fill(const char *path, uint64_t offset, struct rootfs *rootfs, int tar_fd, struct error *error)
{
    char options[32];
    snprintf(options, sizeof options, "offset=%" PRIu64, offset);
    errcode_t code = ext2fs_open2(path, options, EXT2_FLAG_RW | EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &rootfs->fs);
    if (!code)
        code = ext2fs_read_bitmaps(rootfs->fs);
    int r = code ? failed(code, error, "opening", "") : tar_open(tar_fd, &rootfs->tar, error);
    if (r == 0)
        r = add_all(rootfs, tar_fd, error);
    tar_close(rootfs->tar);
    if (rootfs->fs) {
        code = r == 0 ? ext2fs_close(rootfs->fs) : 0;
        if (code)
            r = failed(code, error, "finishing", "");
        if (r < 0)
            ext2fs_free(rootfs->fs);
    }
    return r;
}

/* The empty file system in the partition. The file is all zeroes, so inode tables need no writing, now or by the
 * guest's first mount. */
static int make_empty(const char *path, const struct gpt_partition *part, struct error *error)
{
    char extended[128], blocks[32];
    snprintf(extended, sizeof extended, "offset=%" PRIu64 ",assume_storage_prezeroed=1,nodiscard,root_owner=0:0",
             part->offset);
    snprintf(blocks, sizeof blocks, "%" PRIu64 "k", part->size >> 10);
    char *const argv[] = {"mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "1", "-L", "root", "-E", extended,
                          (char *)(uintptr_t)path, blocks, NULL};
    return spawn_wait(argv, error);
}

int rootfs_make(const char *path, uint64_t size, int tar_fd, void (*progress)(void *owner, uint64_t bytes),
                void *owner, struct error *error)
{
    struct gpt_partition part;
    struct rootfs *rootfs = calloc(1, sizeof *rootfs);
    if (!rootfs)
        return error_set(error, ENOMEM, "no memory to make a disk");
    initialize_ext2_error_table();
    rootfs->progress = progress;
    rootfs->owner = owner;
    int fd = open(path, O_RDWR | O_CLOEXEC), r = 0;
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
        r = error_set(error, errno, "making the disk %s: %s", path, strerror(errno));
    if (r == 0)
        r = gpt_write(fd, size, &part, error);
    if (r == 0)
        r = make_empty(path, &part, error);
    if (r == 0)
        r = fill(path, part.offset, rootfs, tar_fd, error);
    if (r == 0 && fsync(fd) < 0)
        r = error_set(error, errno, "writing the disk %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    free(rootfs);
    return r;
}
