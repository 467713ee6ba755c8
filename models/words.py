"""Two disjoint lists of common English words: verbs for the test, nouns for calibration.

From WordNet 3.0, Copyright 2006 by Princeton University (WordNet licence): the most frequent words of three to eleven
letters that are one part of speech only.
"""

from __future__ import annotations

VERBS = """
abide absorb abstain accelerate accept accommodate accompany accomplish accumulate acknowledge acquaint acquire
activate adapt adhere adjust administer admire admit adopt advise affirm afford aggravate agitate agree align
alleviate allot allow alter amaze amend amplify amuse analyse analyze animate announce anticipate appear appease
applaud apply appoint appreciate apprehend appropriate approve approximate argue arise arouse arraign arrange
articulate ascend ascertain ask assemble assert assess assign assimilate assume assure attach attain attend attest
attract augment avert avoid awaken bake banish bask beckon become beg beguile behave belabor believe belong beset
besmirch bestow bethink betray bewilder bilk bleed bless blunt borrow breathe bring broaden bury calcify calculate
capitalize carve celebrate certify choose circulate clothe coalesce coincide commemorate commence commend commit
communicate compensate compile complete complicate compose comprehend comprise conceal concede conceive conclude
concoct concur condemn condense confess confide confine confirm conform confront confuse connect conquer consider
consign consist consolidate conspire constitute consult consume consummate contain contaminate contemplate contend
continue contradict contribute contrive converge convey convulse correct correspond corroborate corrupt counteract
cram create cringe crumple crystallize culminate cultivate dabble dampen dangle deaden deceive decide declare
decorate dedicate deduce deduct deepen defend defer define defy deliver democratize demonstrate denote denounce deny
depart depict depress deprive derive descend describe designate destine destroy detach deteriorate determine develop
devote devour diagnose differ diffuse diminish direct disappear disapprove disband disclose discontinue discourage
discover discuss disentangle dismiss disperse displace dispose disrupt dissipate distill distinguish distort
distribute disturb diverge divert divest dominate dramatize drown dull dwell earn eat edit educate eject elaborate
elevate elicit eliminate elude emancipate embark embellish embody emerge emit emphasize enact enclose encourage
endanger endorse endow endure enforce engage engrave engulf enhance enjoin enjoy enlarge enlist enliven ensure enter
entertain entitle enunciate envision equate equip erode err erupt establish etch evacuate evade evaporate evoke
evolve exaggerate exalt examine exceed except excite exclaim exclude execute exemplify exert exist expand expect
expel expend expire explain explode explore extend extinguish extrapolate fail falsify fascinate fasten flatten
follow forbid foreclose foresee forget forgive formulate fortify frequent frighten fulfil fulfill furnish further
generalize generate glorify gnaw govern greet grow happen harden hasten heal hear heighten hesitate hinder hover
humble hurtle identify ignite ignore illuminate illustrate imagine imbibe imitate immerse impair impart impede imply
impose imprison improve incite include incorporate incubate indicate indorse induce induct indulge infect infer
infiltrate inflame inflate inform ingest inhabit inhibit inject inquire inscribe insist inspect inspire install
instruct insulate insure integrate intend intensify interfere interpose interpret intimidate intone introduce
intrude invade invalidate invent invest investigate invoke involve irritate isolate jeopardize justify learn lend
lessen liberate lighten linger liquidate listen live locate loose loosen lose lurk magnify maintain manage
manipulate marry mature maximize merge mingle minimize mislead misplace mobilize modernize modify monopolize mourn
multiply nab naturalize necessitate neutralize nominate nourish oblige obliterate obscure observe obstruct obtain
occupy occur offend officiate operate oppose ordain organise organize originate outweigh overcome overpower
overreach overtake overwhelm owe paralyze pare participate patronize penetrate perceive perform persist personify
persuade pertain plead please poach polarize portray possess pour pray preach precede predict prefer prepare
presuppose prevail prevent proceed proclaim profess promote promulgate pronounce propose prosecute prostrate protect
prove provide provoke publicize publish purify pursue qualify quench quicken quit radiate ransack rationalize react
realize reap reassure rebut receive recite reckon reclaim recognize recommend reconcile reconstruct recover recur
redeem reduce reenact refer refine reflect refuel refute regulate reinforce rejoice rejoin relate relax relegate
relieve remain remember remind renew reorganize repay repel replace represent reproduce repudiate require reside
resist respond restore restrain restrict retain retaliate retire reunite reveal reverberate revive revolve ripen rob
rotate satisfy secure seem seize send sever sharpen shorten shut sicken sidle sift signify sing sit situate slacken
slow soften solicit solve soothe speak specialize specify speculate spend starve stiffen stimulate straighten
stratify strengthen strew strive stun subdue submerge submit subscribe succeed suffer suffocate suggest summon
suppose suppress surmount surpass survive suspend sustain swear sympathize synchronize tame tempt tend terminate
testify thicken threaten thrive tighten transcend transcribe transform translate transmit transmute uncover
understand undertake underwrite undo unfold unify unite unleash unlock unscrew uphold utter vacate validate vanish
vary ventilate verify vex vibrate victimize violate vocalize wander warm warn weaken weigh widen wield withdraw
withhold woo write
""".split()

NOUNS = """
absence absorption abstraction academy accelerator acceptance accounting activity addition adjustment admission
affair agency agent aggression agreement agriculture alignment analysis anatomy annoyance antecedent appearance
application appointment approval area argument arrangement arrival art artillery aspect assemblage assembly
assignment association assumption assurance atmosphere attachment attention attitude attraction audience authority
backbone barrier basket bass battery bearer bearing beauty beginning behavior binding bit bitterness blackout blade
booth bourbon boy brass breath brother brotherhood brow building bulb business calf capacity capital car carriage
carrier ceiling cell ceremony chapter charity chest chicken child choice circulation circus city collection
collector colony column coming commander commitment community competition complaint complex component composition
compulsion conception conclusion concurrence conductor confederacy conference confession confidence confinement
conformity confusion congress conjunction connection conscience consequence consistency conspiracy constituent
contempt contrivance convenience convention conversion coolness correction country craftsman creation creature
criticism crossroads cruelty crystal cult cultivation current custom cutting danger dark darkness day dealer death
decision declaration deduction defense degree delicacy denial depression depth deputy derivation descent designer
detachment detection development deviation device devotion dialogue diamond diaphragm difference difficulty
diffusion direction director dirt disapproval disaster disc discovery discretion disposal disposition distinction
distortion disturbance diversion divinity division dollar domain dominance door drama drawing duration duty ear east
economy edition education effort election electricity element elevation emergence emphasis empire employment
enclosure ending enemy energy engagement engine enjoyment enthusiasm entry envelope episode equilibrium error
eternity eve event evil examination example excess excitement execution expectation expedition exploration explosion
exposure expression extension fact failure faith familiarity family feeling fellow fighter filling finding firing
firmness first fitness flat folk folly footstep formation formula formulation fortune foundation fraud frequency
freshness friend fullness fun fury gathering generation generator genius giant girl goal gold good government
grievance grounds growth guidance hall handling harmony haste hearing heart height hen heritage hero hesitation hip
history horizon hour hunting idea identity idiom illusion imagination imitation immediacy implication impression
improvement impulse incarnation incitement inclination indicator induction inflection information inhibition
initiation injury inmate inquiry insight inspiration instability institution instruction integration intensity
interpreter interval intrusion invention investment involvement irritation isolation item journal judgment junior
justice king kingdom knee knob landing landmark language law leadership left leg lemon length lesson liberty library
lieutenant life lighting limitation liquid literature liver living loading location logic loss loyalty luck magazine
magnitude maintenance majority manner margin marking marriage material maturity mechanism medium meeting member
memory mercy mile ministry minute mission mixture modulation moment monster morning motif mouthpiece movement music
nation nationalism nature news newspaper niche night north northeast notion novelty nucleus objection obligation
obscurity observation occupation offense office omission opening operation operator opinion opposite opposition
orange ordinary organ orientation origin outlet outpost overture painting palace paradigm parameter particle passage
passing passion past path pavement peace penalty penetration perception percussion performance period philosophy
pickup pill pitcher placement planning platform player pleasure policy politics pony population portrayal possession
possibility potency prayer precaution precedent preference preparation presence president pretence primary principal
principle printing problem procedure producer product production profession profundity progression prohibition
projection promotion property protection providence publication pursuit quality quill quotation radiation radical
radius rating reaction reader readiness reading realism reality realization receiver reception recital recognition
recovery red reduction redundancy refinement reflection region regulation rejection relation relief rendering
repetition replacement requirement reservation reservoir residence resignation resistance resolution resonance
resource response restoration restraint revelation revision rhythm richness rider rigger rod role roughness routine
runner running safety sailing sale salvation sardine saturation scene secretary sector security seizure selection
sensation sensitivity separation series session setting settlement sheath shot signature simplicity sincerity
sitting situation society solution song soul south southeast southwest speaker speculation speech sphere standard
statement stiffness stimulation storage story street strength subdivision submission substance success succession
suffering suggestion suite superior superiority survivor suspicion sympathy system tea teaching television temple
tendency tenor tension terminal testament testimony testing texture theology theory thing thinness third thought
threat threshold throat timber toilet tolerance tooth town tract translation treasury treatment trial trio trough
trunk truth turning union unit unity utility valve variation variety version veteran village violation violence
vision vocabulary volume wagon warmth way weakness wealth week west wildcat window wisdom withdrawal withholding
wood words worker works world writing yard year youth
""".split()
