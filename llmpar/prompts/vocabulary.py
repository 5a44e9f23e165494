"""Common English words of at most seven letters for synthetic prompts.

Each is one token, with the space before it, in the vocabularies of Mistral 7B (SentencePiece, as Llama 2), Mistral's
Tekken (byte-level BPE) and Gemma 3, so that a number of words is a number of tokens without a tokenizer at hand.
"""

from __future__ import annotations

WORDS = """
the and for not that with from are this name value can one which all have must any was line but has when only
may used use you new while other number first two same than into end been given where more they before there
after each would like about time such some work out what most last without these need case part between next
start make could order were just left three four found level being through over want both open change their see
child always run length means per who way day instead least within how back still had done now point keep
another long based system special terms itself state second stack block above nothing around include here even
full month bit too letter free works build closed our down give old group written sure target right shared she
future ignore much town help date small own common remove changes look word short follow useful equal range top
best close river flour step makes link whose place kind actual tree put against week head total present body
years rest title better came turn show control days price nobody rather pair style space paths waiting accept
replace outside ten led hour light bus mouth morning money radio kitchen wheat width wants members various rules
events happen times almost natural summary sum people family several again opens five good said far points moved
cost display static policy house water road table stone glass paper bread milk garden window door floor wall
roof bridge street field forest valley island ship boat sea lake winter summer spring autumn snow rain wind
storm cloud sky sun moon star night evening noon dawn year horse dog cat bird fish sheep cow farm mill market
shop school church hall tower castle village city county country world earth ground sand iron steel copper
silver gold wood oak leaf root seed fruit apple corn rice salt sugar oil soup meat egg cup plate knife spoon
fork bottle box bag coat shoe hat shirt dress ring chain rope wheel engine train car truck plane ticket map
picture book page story song music dance game ball team player doctor nurse teacher student worker driver farmer
king queen judge officer soldier captain friend mother father sister brother son wife husband man woman boy girl
baby person hand foot arm leg eye ear nose face hair heart blood bone skin voice breath sleep dream hope fear
anger joy love peace war law court duty power force speed weight height depth color red green blue white black
yellow brown gray dark bright warm cold hot dry wet soft hard heavy quick slow early late young great large
little high low deep wide narrow thick thin round square flat sharp clean dirty rich poor strong weak happy sad
brave quiet loud busy ready empty true false fair simple plain clear strange rare certain whole half double
single walk talk speak write read learn teach think know feel hear watch hold carry bring send sell buy pay
break cut burn grow plant fall rise stand sit lie climb swim fly drive ride travel visit meet leave arrive
return begin finish wait stay live die eat drink cook wash play sing laugh cry fight win lose find hide seek ask
answer tell explain choose decide agree promise refuse allow forget believe measure count weigh compare test
prove record report print copy paint draw mark sign share divide join gather spread pull push lift drop throw
catch stop pass cross lead guide serve protect save waste spend earn rent borrow
""".split()  # noqa: SIM905
