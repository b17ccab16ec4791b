/* Does this ScaLAPACK link, with the C interface of its BLACS and what the program calls? */
#include <mpi.h>

int Csys2blacs_handle(MPI_Comm comm);
void Cblacs_gridinit(int *context, char *order, int nprow, int npcol);
void descinit_(int *desc, const int *m, const int *n, const int *mb, const int *nb, const int *irsrc,
               const int *icsrc, const int *context, const int *lld, int *info);
void pzlahqr_(void);
void pdhseqr_(void);
void pzgemr2d_(void);

int main(void)
{
  void (*const used[])(void) = {pzlahqr_,
                                pdhseqr_,
                                pzgemr2d_,
                                (void (*)(void))descinit_,
                                (void (*)(void))Csys2blacs_handle,
                                (void (*)(void))Cblacs_gridinit};
  return used[0] == 0;
}
