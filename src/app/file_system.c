/* src/app/file_system.c: see file_system.h.
 *
 * Open MPI has two MPI-IO components, OMPIO (the default; on Lustre since 4.1) and ROMIO.  Reports that matter to a
 * file that many ranks write:
 *   open-mpi/ompi 6285         OMPIO before 3.0.4, 3.1.4 and 4.0.1: parallel HDF5 files damaged, crashes
 *   open-mpi/ompi 9479, 11182  OMPIO 4.1 on Lustre: hangs; ROMIO writes the same file
 *   HDFGroup/hdf5 5151         Open MPI 5.0.5: tests of parallel HDF5 fail, mended in 5.0.6
 * (12718, wrong data through a cartesian communicator, does not touch this program: it has none.) */
#include "file_system.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <sys/xattr.h>

#include "app.h"
#include "sq/base.h"

const char *sq_fs_name(const char *dir)
{
  static const struct {
    unsigned long magic;
    const char *name;
  } known[] = {
      {0xEF53, "ext4"},       {0x58465342, "xfs"},     {0x6969, "nfs"},       {0x0BD00BD0, "lustre"},
      {0x01021994, "tmpfs"},  {0x794c7630, "overlay"}, {0x9123683E, "btrfs"}, {0x47504653, "gpfs"},
      {0x19830326, "beegfs"}, {0x2FC12FC1, "zfs"},     {0xFF534D42, "cifs"},  {0xFE534D42, "smb2"},
      {0x65735546, "fuse"},   {0x01021997, "9p"},      {0x00C36400, "ceph"},  {0x6A656A63, "virtiofs"}};
  static char other[32];
  struct statfs s;
  if (statfs(dir, &s) != 0) return "unknown";
  for (size_t i = 0; i < sizeof known / sizeof *known; ++i)
    if (((unsigned long)s.f_type & 0xFFFFFFFFul) == known[i].magic) return known[i].name;
  sq_format(other, sizeof other, "type 0x%lx", (unsigned long)s.f_type & 0xFFFFFFFFul);
  return other;
}

static int is_one_of(const char *name, const char *const *list)
{
  for (; *list != NULL; ++list)
    if (strcmp(name, *list) == 0) return 1;
  return 0;
}

/* 40104 for Open MPI 4.1.4; 0: another MPI. */
static int open_mpi_version(void)
{
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int n, major = 0, minor = 0, release = 0;
  MPI_Get_library_version(text, &n);
  if (sscanf(text, "Open MPI v%d.%d.%d", &major, &minor, &release) < 2) return 0;
  return major * 10000 + minor * 100 + release;
}

const char *sq_mpi_io_name(const char *dir)
{
  const char *chosen = getenv("OMPI_MCA_io");
  const int version = open_mpi_version();
  if (version == 0) return "romio";
  if (chosen != NULL) {
    const int ompio = strstr(chosen, "ompio") != NULL;
    return (chosen[0] == '^' ? !ompio : ompio) ? "ompio" : "romio";
  }
  return version < 40100 && strcmp(sq_fs_name(dir), "lustre") == 0 ? "romio" : "ompio";
}

/* Stripes that a new file in dir gets; 0: not known.  The layout is the head of a lov_user_md: magic (4 bytes, of a plain layout), pattern
 * (4), object id (16), stripe size (4), stripe count (2; all ones: every target). */
static int lustre_stripes(const char *dir)
{
  unsigned char layout[4096];
  uint32_t magic;
  uint16_t count;
  if (getxattr(dir, "lustre.lov", layout, sizeof layout) < 32) return 0;
  memcpy(&magic, layout, sizeof magic);
  memcpy(&count, layout + 28, sizeof count);
  return magic == 0x0BD10BD0 || magic == 0x0BD30BD0 ? count : 0;
}

static void version_text(char out[32], int v)
{
  sq_format(out, 32, "%d.%d.%d", v / 10000, v / 100 % 100, v % 100);
}

int sq_fs_troubles(const char *dir, int nhost, sq_fs_trouble t[SQ_FS_TROUBLES])
{
  static const char *const remote[] = {"nfs", "cifs", "smb2", "fuse", NULL};
  const char *name = sq_fs_name(dir);
  const int lustre = strcmp(name, "lustre") == 0, version = open_mpi_version(),
            ompio = version > 0 && strcmp(sq_mpi_io_name(dir), "ompio") == 0;
  const char *romio = version < 50000 ? "romio321" : "romio341";
  const int old =
      version > 0 && (version < 30004 || (version >= 30100 && version < 30104) || version == 40000);
  char v[32];
  int n = 0;
  version_text(v, version);
  if (is_one_of(name, remote) && nhost > 1) {
    sq_format(t[n].what, sizeof t[n].what, "file system of %.100s: %s, written from %d hosts", dir, name,
              nhost);
    sq_format(
        t[n++].remedy, sizeof t[0].remedy,
        "hosts may see each other's data late or never: write to a parallel file system (--out, --dir)");
  }
  if (lustre && ompio) {
    sq_format(t[n].what, sizeof t[n].what,
              "MPI-IO of Open MPI %s on Lustre: OMPIO, which was seen to hang there (open-mpi/ompi 11182)",
              v);
    sq_format(t[n++].remedy, sizeof t[0].remedy, "export OMPI_MCA_io=%s", romio);
  } else if (ompio && (old || version == 50005)) {
    sq_format(t[n].what, sizeof t[n].what,
              "MPI-IO of Open MPI %s: OMPIO, which damages parallel HDF5 files (%s)", v,
              old ? "open-mpi/ompi 6285" : "HDFGroup/hdf5 5151");
    sq_format(t[n++].remedy, sizeof t[0].remedy, "a newer release, or export OMPI_MCA_io=^ompio");
  }
  if (lustre && nhost > 1 && lustre_stripes(dir) == 1) {
    sq_format(t[n].what, sizeof t[n].what, "file system of %.100s: lustre, one stripe, written from %d hosts",
              dir, nhost);
    sq_format(t[n++].remedy, sizeof t[0].remedy,
              "before the file is made: lfs setstripe -c 4 DIR (existing files keep their layout)");
  }
  return n;
}
