/* src/app/swept.c: swept values as people read them. */
#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

#include "app.h"

char *sq_swept_text(const char *swept)
{
  cJSON *o = cJSON_Parse(swept);
  char *out = NULL;
  size_t size = 0;
  FILE *f = open_memstream(&out, &size);
  if (f != NULL) {
    int n = 0;
    /* A file may hold any JSON: members of a list have no names. */
    for (const cJSON *v = cJSON_IsObject(o) ? o->child : NULL; v != NULL; v = v->next) {
      if (strcmp(v->string, "seed") == 0) continue;
      char *text = cJSON_PrintUnformatted(v);
      fprintf(f, "%s%s = %s", n++ > 0 ? ", " : "", v->string,
              cJSON_IsString(v) ? v->valuestring
              : text != NULL    ? text
                                : "?");
      cJSON_free(text);
    }
    fclose(f);
  }
  cJSON_Delete(o);
  return out;
}
