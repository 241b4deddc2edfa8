#include "rootfs/tree.h"

#include <errno.h>
#include <ext2fs/ext2_err.h>
#include <ext2fs/ext2fs.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define COPY_BYTES (256u << 10)
#define MODE_FILE 0100000u
#define MODE_CHAR 0020000u
#define MODE_BLOCK 0060000u
#define MODE_FIFO 0010000u

struct tree {
    ext2_filsys fs;
    char folder[ENTRY_PATH_MAX]; /* the last folder looked up, and its inode: entries come folder by folder */
    ext2_ino_t folder_inode;
    uint64_t written;
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
static int find_folder(struct tree *tree, const char *path, ext2_ino_t *ret_inode, const char **ret_name,
                       struct error *error)
{
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    *ret_name = slash ? slash + 1 : path;
    if (!tree->folder_inode || strlen(tree->folder) != length || memcmp(tree->folder, path, length) != 0) {
        memcpy(tree->folder, path, length);
        tree->folder[length] = 0;
        tree->folder_inode = 0;
        ext2_ino_t inode = EXT2_ROOT_INO;
        errcode_t code = length ? ext2fs_namei(tree->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, tree->folder, &inode) : 0;
        if (code)
            return failed(code, error, "finding the folder of", path);
        tree->folder_inode = inode;
    }
    *ret_inode = tree->folder_inode;
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
static errcode_t make_inode(ext2_filsys fs, ext2_ino_t folder, const char *name, const struct entry *entry,
                            ext2_ino_t *ret_inode)
{
    static const struct {
        uint32_t mode;
        int type;
    } kinds[] = {[ENTRY_FILE] = {MODE_FILE, EXT2_FT_REG_FILE}, [ENTRY_CHAR] = {MODE_CHAR, EXT2_FT_CHRDEV},
                 [ENTRY_BLOCK] = {MODE_BLOCK, EXT2_FT_BLKDEV}, [ENTRY_FIFO] = {MODE_FIFO, EXT2_FT_FIFO}};
    struct ext2_inode inode = {.i_mode = (uint16_t)kinds[entry->type].mode, .i_links_count = 1};
    errcode_t code = ext2fs_new_inode(fs, folder, (int)inode.i_mode, 0, ret_inode);
    if (!code)
        code = add_name(fs, folder, name, *ret_inode, kinds[entry->type].type);
    if (code)
        return code;
    ext2fs_inode_alloc_stats2(fs, *ret_inode, +1, 0);
    if (entry->type == ENTRY_CHAR || entry->type == ENTRY_BLOCK) /* the kernel's "new" device number */
        inode.i_block[1] = (entry->minor & 0xff) | entry->major << 8 | (entry->minor & ~0xffu) << 12;
    if (entry->type == ENTRY_FILE) {
        inode.i_flags = EXT4_EXTENTS_FL;
        struct ext3_extent_header *head = (void *)inode.i_block;
        *head = (struct ext3_extent_header){.eh_magic = ext2fs_cpu_to_le16(EXT3_EXT_MAGIC), .eh_max = ext2fs_cpu_to_le16(4)};
    }
    return ext2fs_write_new_inode(fs, *ret_inode, &inode);
}

/* Writes what the archive has for a file, and not more than it said. */
static int write_content(struct tree *tree, struct entries *entries, ext2_file_t file, const struct entry *entry,
                         struct error *error)
{
    errcode_t code = 0;
    uint64_t done = 0;
    int64_t got;
    while ((got = entries_read(entries, tree->buffer, sizeof tree->buffer, error)) > 0) {
        unsigned put;
        if ((uint64_t)got > entry->size - done)
            return error_set(error, EINVAL, "the archive is damaged: /%s has more content than it says", entry->path);
        code = ext2fs_file_write(file, tree->buffer, (unsigned)got, &put);
        if (code || put != got)
            break;
        done += (uint64_t)got;
        tree->written += (uint64_t)got;
    }
    if (got == 0 && done < entry->size) /* the hole at the end of a sparse file */
        code = ext2fs_file_set_size2(file, (ext2_off64_t)entry->size);
    return got < 0 ? (int)got : code || got ? failed(code ? code : EXT2_ET_SHORT_WRITE, error, "writing", entry->path) : 0;
}

/* Copies the entry's content. Its blocks are taken first and together, so that the guest reads in long runs; the disk
 * is all zeroes, and so are they. */
static int copy_content(struct tree *tree, struct entries *entries, ext2_ino_t inode, const struct entry *entry,
                        struct error *error)
{
    if (entry->size == 0)
        return 0;
    blk64_t blocks = (entry->size + tree->fs->blocksize - 1) / tree->fs->blocksize;
    if (blocks > ext2fs_free_blocks_count(tree->fs->super))
        return failed(EXT2_ET_BLOCK_ALLOC_FAIL, error, "", "");
    ext2_file_t file = NULL;
    errcode_t code = ext2fs_fallocate(tree->fs, EXT2_FALLOCATE_FORCE_INIT, inode, NULL, ~0ULL, 0, blocks);
    if (!code)
        code = ext2fs_file_open(tree->fs, inode, EXT2_FILE_WRITE, &file);
    if (code)
        return failed(code, error, "making", entry->path);
    int r = write_content(tree, entries, file, entry, error);
    code = ext2fs_file_close(file);
    return r == 0 && code ? failed(code, error, "writing", entry->path) : r;
}

static errcode_t set_xattrs(ext2_filsys fs, ext2_ino_t inode, const struct entry *entry)
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
static int set_attributes(struct tree *tree, ext2_ino_t number, const struct entry *entry, struct error *error)
{
    struct ext2_inode_large inode;
    struct ext2_inode *small = (struct ext2_inode *)(void *)&inode;
    errcode_t code = ext2fs_read_inode_full(tree->fs, number, small, sizeof inode);
    if (!code) {
        uint32_t time = entry->mtime < 0 ? 0 : (uint32_t)entry->mtime, epoch = (uint32_t)((uint64_t)entry->mtime >> 32) & 3;
        inode.i_mode = (uint16_t)((inode.i_mode & 0170000) | entry->mode);
        if (entry->type == ENTRY_SYMLINK)
            inode.i_mode = 0120777;
        inode.i_uid = (uint16_t)entry->uid;
        inode.i_gid = (uint16_t)entry->gid;
        ext2fs_set_i_uid_high(*small, entry->uid >> 16);
        ext2fs_set_i_gid_high(*small, entry->gid >> 16);
        inode.i_mtime = inode.i_ctime = inode.i_atime = time;
        inode.i_mtime_extra = inode.i_ctime_extra = inode.i_atime_extra = entry->mtime < 0 ? 0 : epoch;
        code = ext2fs_write_inode_full(tree->fs, number, small, sizeof inode);
    }
    if (!code && entry->xattrs)
        code = set_xattrs(tree->fs, number, entry);
    return code ? failed(code, error, "setting the attributes of", entry->path) : 0;
}

static int add_link(struct tree *tree, ext2_ino_t folder, const char *name, const struct entry *entry,
                    struct error *error)
{
    struct ext2_inode inode;
    ext2_ino_t number;
    errcode_t code = ext2fs_namei(tree->fs, EXT2_ROOT_INO, EXT2_ROOT_INO, entry->target, &number);
    if (!code)
        code = ext2fs_read_inode(tree->fs, number, &inode);
    if (!code && (LINUX_S_ISDIR(inode.i_mode) || inode.i_links_count >= 65000))
        code = EXT2_ET_INVALID_ARGUMENT;
    if (!code)
        code = add_name(tree->fs, folder, name, number, LINUX_S_ISREG(inode.i_mode) ? EXT2_FT_REG_FILE : EXT2_FT_UNKNOWN);
    inode.i_links_count++;
    if (!code)
        code = ext2fs_write_inode(tree->fs, number, &inode);
    return code ? failed(code, error, "linking", entry->path) : 0;
}

static int add_entry(struct tree *tree, struct entries *entries, const struct entry *entry, struct error *error)
{
    ext2_ino_t folder, inode = EXT2_ROOT_INO;
    const char *name;
    if (!entry->path[0])
        return entry->type == ENTRY_FOLDER ? set_attributes(tree, inode, entry, error) : 0;
    int r = find_folder(tree, entry->path, &folder, &name, error);
    if (r < 0 || entry->type == ENTRY_LINK)
        return r < 0 ? r : add_link(tree, folder, name, entry, error);
    errcode_t code = 0;
    /* lost+found is there already; nothing else may come twice. */
    bool there = entry->type == ENTRY_FOLDER && ext2fs_lookup(tree->fs, folder, name, (int)strlen(name), NULL, &inode) == 0;
    if (entry->type == ENTRY_FOLDER && !there)
        code = make_folder(tree->fs, folder, name);
    else if (entry->type == ENTRY_SYMLINK)
        code = make_symlink(tree->fs, folder, name, entry->target);
    else if (!there)
        code = make_inode(tree->fs, folder, name, entry, &inode);
    if (!code && !there && (entry->type == ENTRY_FOLDER || entry->type == ENTRY_SYMLINK))
        code = ext2fs_lookup(tree->fs, folder, name, (int)strlen(name), NULL, &inode);
    if (code)
        return failed(code, error, "making", entry->path);
    r = entry->type == ENTRY_FILE ? copy_content(tree, entries, inode, entry, error) : 0;
    return r < 0 ? r : set_attributes(tree, inode, entry, error);
}

int tree_fill(struct tree *tree, struct entries *entries, void (*progress)(uint64_t bytes), struct error *error)
{
    struct entry entry;
    int r;
    while ((r = entries_next(entries, &entry, error)) > 0) {
        r = add_entry(tree, entries, &entry, error);
        if (r < 0)
            return r;
        if (entry.size && progress)
            progress(tree->written);
    }
    return r;
}

int tree_open(const char *path, uint64_t offset, struct tree **ret_tree, struct error *error)
{
    char options[32];
    struct tree *tree = calloc(1, sizeof *tree);
    if (!tree)
        return error_set(error, ENOMEM, "no memory to make a disk");
    initialize_ext2_error_table();
    snprintf(options, sizeof options, "offset=%" PRIu64, offset);
    errcode_t code = ext2fs_open2(path, options, EXT2_FLAG_RW | EXT2_FLAG_64BITS, 0, 0, unix_io_manager, &tree->fs);
    if (!code)
        code = ext2fs_read_bitmaps(tree->fs);
    if (!code) {
        *ret_tree = tree;
        return 0;
    }
    if (tree->fs)
        ext2fs_free(tree->fs);
    free(tree);
    return failed(code, error, "opening", "");
}

int tree_close(struct tree *tree, struct error *error)
{
    errcode_t code = ext2fs_close(tree->fs);
    if (code)
        ext2fs_free(tree->fs);
    free(tree);
    return code ? failed(code, error, "finishing", "") : 0;
}
