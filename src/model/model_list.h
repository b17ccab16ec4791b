/* src/model/model_list.h: the backbones, the only list there is.  The name is the value of `model.layer`. */
SQ_BACKBONE(transformer)
SQ_BACKBONE(mamba)
SQ_BACKBONE(ssm)
