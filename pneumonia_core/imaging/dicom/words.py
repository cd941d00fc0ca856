"""Words of body parts and views, as hospitals write them in many languages and alphabets.

Every list is compared after `fold`: upper case, without accents.
"""

import re
import unicodedata
from typing import Final

# Letters that do not come apart into another and an accent.
_PLAIN: Final = str.maketrans({"Ł": "L", "Ø": "O", "Đ": "D", "Æ": "AE", "Œ": "OE", "İ": "I"})


def fold(text: str) -> str:
    """The text in upper case, without accents, of usual width: `tórax` is TORAX, `Ｃｈｅｓｔ` is CHEST."""
    parts = unicodedata.normalize("NFKD", text.upper())
    bare = "".join(part for part in parts if not unicodedata.combining(part))
    return unicodedata.normalize("NFC", bare).translate(_PLAIN)


def _stems(*lines: str) -> re.Pattern[str]:
    """What finds one of the stems, separated by blanks; `_` is a blank in one, `=` ends a word."""
    stems = [fold(stem) for line in lines for stem in line.split()]
    alternatives = (re.escape(stem).replace("_", r"\W*").replace("=", r"(?![^\W_])") for stem in stems)
    # CHESTPA, PCHEST and CHEST1V are written, so that stems are looked for anywhere.
    return re.compile("|".join(alternatives))


def _words(*lines: str) -> frozenset[str]:
    return frozenset(fold(word) for line in lines for word in line.split())


CHEST: Final = _stems(
    "chest chst thora thorx thx torax torac torak torso torse lung pulm pleur mediastin cxr",
    "brust lunge poumon poitrine pecho peito petto polmon plaman borstk",
    "borst= longen longfoto rintakeh keuhko",
    "brostk brostr bryst= brystk lunga lungor klatka= klatk_piers klatka_piers kl_piers kl_p=",
    "piersiow pluc plice= hrudn mellkas",
    "prsni_kos prsa= grudni_kos grudn legki ogk= gogus akcig ac_graf krutin plauc rindker krusu plaus",
    "nguc phoi paru dada=",
    "груд огк огп легк торак торакс флюорогр леген гръд бял_дроб дихательн",
    "θωρακ θωραξ πνευμον στηθ",
    "胸 肺 ムネ キョウブ むね 흉부 가슴 폐 흉곽 ทรวงอก ปอด صدر الرئ رئة سینه ریه חזה ריא छाती",
)
# Parts of the body that are not the chest: the word that a rejection says, and how it is found. The first
# that matches is said. The first three go before a word for the chest, which may be in theirs: `thoracic
# spine`, `Brustbein`, `Brustdrüse`.
SPINE: Final = _stems(
    "spin vertebr lumb column colun colonn rachi wirbel lenden bws= hws=",
    "lws= wervel kregos omurga gerinc selkarang",
    "rygg= ryghv hryg pater= patere kraljez",
    "позвон хребет отдел σπονδυλ 椎 척추 흉추 경추 요추 عمود_فقر שדרה",
)
GLAND: Final = _stems("brustdrus brustimplantat borstklier")
STERNUM: Final = _stems("sternu stern= sternal brustbein esternon mostek грудин στερν 胸骨 흉골")
OTHER_PARTS: Final = (
    ("breast", _stems("breast mamm mamograf sein= seins= seno= brustdruse молочн μαστ 乳 유방")),
    ("skull", _stems("skull schadel crane crani cranio schedel czaszk kafatasi череп κρανι 頭蓋 颅 두개")),
    (
        "jaw",
        _stems("jaw mandib kiefer maxill machoire panoram pantomo dental tooth teeth zahn челюст 顎 颌 턱"),
    ),
    ("sinuses", _stems("sinus nasen nariz naso= nasal пазух 副鼻腔 鼻")),
    ("head", _stems("head= kopf tete= cabeza testa= cabeca hoofd glow= kafa голов κεφαλ 頭 头 머리")),
    ("neck", _stems("neck= cervic cuello collo= pescoco шея шейн αυχεν 頸 颈 목=")),
    (
        "ribs",
        _stems(
            "rib= ribs= ribcage rippe costilla costell cotes= costole", "costela zebra= kaburga ребр πλευρ"
        ),
    ),
    ("clavicle", _stems("clavi schlusselbein obojczyk kopruc ключиц 鎖骨 锁骨 쇄골")),
    (
        "shoulder",
        _stems("should schulter epaule hombro spalla ombro schouder bark= bark_ omuz плеч ωμος 肩 어깨"),
    ),
    ("forearm", _stems("forearm unterarm avant_bras antebr avambracc onderarm przedram 前腕 前臂 전완")),
    ("arm", _stems("humer oberarm upper_arm brazo bras= braccio arm= ramie= kol= 上腕 上臂 상완")),
    ("elbow", _stems("elbow ellenbog ellebo coude codo= gomito cotovelo lokiec dirsek локт αγκων 肘 팔꿈치")),
    (
        "wrist",
        _stems("wrist handgelenk poignet muneca polso punho pols= nadgarst запяст καρπ 手関節 腕关节 손목"),
    ),
    ("finger", _stems("finger doigt dedo_mano dito= palec= parmak палец δακτυλ thumb daumen 指 손가락")),
    ("hand", _stems("hand= hands= hande main= mains= mano= manos= mani= mao= dlon reka= кист χειρ 手 손=")),
    ("abdomen", _stems("abd abdom bauch ventre vientre buik brzuch karin= живот брюшн κοιλι 腹 복부 kub=")),
    ("pelvis", _stems("pelvi becken bassin= bacino bacia bekken miednic таз= таза λεκαν 骨盤 骨盆 골반")),
    (
        "hip",
        _stems(
            "hip= hips= hufte hanche cadera anca= quadril heup biodr kalca тазобедр ισχι 股関節 髋 고관절"
        ),
    ),
    ("thigh", _stems("femur femor oberschenkel thigh muslo coscia coxa= udo= бедр μηρ 大腿 대퇴")),
    ("knee", _stems("knee knie genou rodilla ginocch joelho kolan diz= колен γονατ 膝 무릎 patell")),
    (
        "leg",
        _stems(
            "leg= legs= tibia fibul unterschenkel jambe pierna gamba perna=",
            "lower_limb podudz голен κνημ 下腿",
        ),
    ),
    (
        "ankle",
        _stems(
            "ankle sprung cheville tobillo cavigl tornozel enkel kostk ayak_bilek голеност 足関節 踝 발목"
        ),
    ),
    (
        "foot",
        _stems("foot feet fuss pied= pieds= pie= pies= piede= voet stop=", "ayak стоп ποδι 足 발= calcan"),
    ),
    ("toe", _stems("toe= toes= zeh orteil 趾")),
    ("extremity", _stems("extrem extm= limb konczyn конечност 四肢")),
    ("whole body", _stems("whole_body babygram ganzkorper corps_entier cuerpo_entero 全身 전신")),
)
# Values that name no part.
UNSPECIFIED: Final = _words(
    "UNKNOWN UNDEFINED UNSPECIFIED OTHER OTHERS NONE N/A NA NULL NIL DEFAULT PORTABLE BEDSIDE",
    "STANDARD ROUTINE GENERAL MISC ANY XX XXX - -- ? * . 0 UNBEKANNT",
    "SONSTIGE SONSTIGES ANDERE KEINE INCONNU AUTRE AUTRES",
    "DESCONOCIDO OTRO OTROS SCONOSCIUTO ALTRO DESCONHECIDO OUTRO OUTROS",
    "ONBEKEND OVERIG OVERIGE NIEZNANY",
    "NIEZNANE INNE INNY BILINMIYOR DIGER НЕИЗВЕСТНО ДРУГОЕ",
    "ΑΓΝΩΣΤΟ ΑΛΛΟ 不明 その他 未知 其他 기타 미상",
) | {"NOT SPECIFIED", "NO BODY PART", "NICHT ANGEGEBEN", "NON SPECIFIE", "NO ESPECIFICADO"}

_WORD: Final = re.compile(r"[^\W\d_]+")
_LATERAL_WORDS: Final = _words(
    "LL RL LAT LATS LATERAL LATERALS LATERALE LATERALES LATERALIS LATERALER LATERALT LATERAAL",
    "LATERO LATEROLATERAL LATEROLATERALE LLAT RLAT LATL LATR LTLAT RTLAT LLATERAL RLATERAL LLO RLO",
    "PROFIL PROFILO PERFIL SEITLICH SEITL SEITENANSICHT SEITLICHE",
    "SEITLICHER DWARS ZIJDELINGS ZIJDELINGSE ZIJAANZICHT",
    "BOCZNE BOCZNA BOCZNY BOCZ BOK BOCNI BOCNA BOCNY BOCNO",
    "YAN LATERALNA LATERALNE OLDALIRANYU OLDALFELVETEL",
    "БОКОВАЯ БОКОВОЙ БОКОВОЕ БОКОВ БОК БІЧНА БІЧНИЙ ПРОФИЛЬ ЛАТЕРАЛЬНАЯ",
    "ΠΛΑΓΙΑ ΠΛΑΓΙΟ ΠΛΑΓΙΟΣ ΠΡΟΦΙΛ ΠΛ",
)
_LATERAL_STEMS: Final = _stems("側面 侧位 側位 側像 侧面 侧片 측면 ソクメン r→l l→r ด้านข้าง جانبي צדדי")
_FRONTAL_WORDS: Final = _words(
    "AP PA FRONTAL FRONTALE FRONT FACE FRENTE POSTEROANTERIOR ANTEROPOSTERIOR DV VD",
    "DORSOVENTRAL VENTRODORSAL POSTEROANTERIORE ANTEROPOSTERIORE PRZOD PRZEDNIE PRZEDNIA TYLNO PREDNI ПРЯМАЯ",
    "ПРЯМОЙ ПРЯМОЕ ФРОНТАЛЬНАЯ ПЕРЕДНЯЯ",
    "ЗАДНЯЯ ΠΡΟΣΘΙΑ ΟΠΙΣΘΙΟΠΡΟΣΘΙΑ ΟΠ ΠΟ ΠΑ",
)
_FRONTAL_STEMS: Final = _stems("正面 正位 正側 正侧 정면 전후 후전")
_LYING: Final = _stems("decub lld= rld= seitenlage zijligging 側臥 侧卧 측와")


def is_lying(view: str) -> bool:
    """Whether a view, folded, is one of a patient who lies on the side, seen from the front."""
    return _LYING.search(view) is not None


def is_lateral(view: str) -> bool:
    """Whether a view, folded, is one from the side."""
    if is_lying(view):
        return False
    return _has(view, _LATERAL_WORDS, ("LAT", "LATERAL")) or _LATERAL_STEMS.search(view) is not None


def is_frontal(description: str) -> bool:
    """Whether a description, folded, speaks of a view from the front, alone or beside others."""
    # P.A., a-p, P→A
    joined = re.sub(r"(?<![^\W_])([AP])\W([AP])(?![^\W_])", r"\1\2", description)
    return _has(joined, _FRONTAL_WORDS, ("PA", "AP")) or _FRONTAL_STEMS.search(description) is not None


def _has(view: str, words: frozenset[str], endings: tuple[str, str]) -> bool:
    """Whether one of its words is among these, or the chest with an ending: CHESTLAT."""
    found = _WORD.findall(view)
    return not words.isdisjoint(found) or any(word.endswith(endings) and CHEST.match(word) for word in found)
